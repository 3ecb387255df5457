"""Index the server's folder in the background."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread

import segclip

from .. import models
from . import Cancelled, outcome_of


@dataclass(eq=False)
class Indexing:
    """Progress of indexing, one run at a time for all users."""

    state: str = "idle"
    done: int = 0
    total: int = 0
    rate: float = 0.0
    message: str = ""
    _stop: Event = field(default_factory=Event)
    _lock: Lock = field(default_factory=Lock)
    _thread: Thread | None = None

    @property
    def busy(self) -> bool:
        """Return whether it is running."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, folder: Path, place: Path, model: str) -> None:
        """Make or update the index; does nothing while one is running.

        model: as ``models.parts`` takes it.
        """
        with self._lock:
            if self.busy:
                return
            self._stop.clear()
            self.state, self.message, self.done = "running", "", 0
            spec = segclip.ModelSpec(*models.parts(model))
            options = segclip.IndexOptions(spec, regions=True)
            self._thread = Thread(target=self._run, args=(folder, place, options), daemon=True)
            self._thread.start()

    def cancel(self) -> None:
        """Stop; finished work is kept."""
        self._stop.set()

    def _run(self, folder: Path, place: Path, options: segclip.IndexOptions) -> None:
        with outcome_of(self):
            done = segclip.make_index(folder, options, out=place, report=self._report)
            failed = f", {len(done.failed)} could not be read" if done.failed else ""
            message = f"{done.pictures} images, {done.regions} regions{failed}"
            message += "".join(f"; unreachable: {line}" for line in done.unreachable[:1])
            self.state, self.message = "done", message

    def _report(self, progress: segclip.Progress) -> None:
        self.total, self.done, self.rate = (
            progress.total,
            progress.before + progress.now,
            progress.rate,
        )
        if self._stop.is_set():
            raise Cancelled
