"""Index the server's folder in the background."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock

import segclip

from .. import models
from . import BackgroundJob


@dataclass(eq=False)
class Indexing(BackgroundJob):
    """Progress of indexing, one run at a time for all users."""

    total: int = 0
    _lock: Lock = field(default_factory=Lock)

    def start(self, folder: Path, place: Path, model: str) -> None:
        """Make or update the index; does nothing while one is running.

        model: as ``models.parts`` takes it.
        """
        with self._lock:
            if self.busy:
                return
            self.done = 0
            spec = segclip.ModelSpec(*models.parts(model))
            options = segclip.IndexOptions(spec, regions=True)
            self._begin(partial(self._run, folder, place, options), "running")

    def _run(self, folder: Path, place: Path, options: segclip.IndexOptions) -> None:
        with self.outcome():
            done = segclip.make_index(folder, options, out=place, report=self._report)
            failed = f", {len(done.failed)} could not be read" if done.failed else ""
            message = f"{done.images} images, {done.regions} regions{failed}"
            message += "".join(f"; unreachable: {line}" for line in done.unreachable[:1])
            self.state, self.message = "done", message

    def _report(self, progress: segclip.Progress) -> None:
        self.total = progress.total
        super()._report(progress)
