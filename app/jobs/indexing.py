"""Index the server's folder beside the pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread

import segclip

from .. import models
from .batches import Cancelled


@dataclass(eq=False)
class Indexing:
    """Hold how far indexing is; one at a time, whoever asked for it."""

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
        """Tell whether it runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, folder: Path, place: Path, model: str) -> None:
        """Index, or bring the index up to date; does nothing while it runs. model: as
        ``models.parts`` takes it.
        """
        with self._lock:
            if self.busy:
                return
            self._stop.clear()
            self.state, self.message, self.done = "running", "", 0
            proposer, encoder = models.parts(model)
            options = segclip.IndexOptions(proposer=proposer, encoder=encoder, regions=True)
            self._thread = Thread(target=self._run, args=(folder, place, options), daemon=True)
            self._thread.start()

    def cancel(self) -> None:
        """Stop; what is done is kept."""
        self._stop.set()

    def _run(self, folder: Path, place: Path, options: segclip.IndexOptions) -> None:
        try:
            done = segclip.make_index(folder, options, out=place, tell=self._tell)
            failed = f", {len(done.failed)} could not be read" if done.failed else ""
            self.state, self.message = (
                "done",
                f"{done.pictures} pictures, {done.regions} regions{failed}",
            )
            self.message += "".join(f"; cannot be reached: {line}" for line in done.unreachable[:1])
        except Cancelled:
            self.state = "cancelled"
        except (segclip.SegclipError, OSError) as problem:  # a full disk, say
            self.state, self.message = "failed", str(problem)
        finally:
            if self.state == "running":  # what nobody foresaw
                self.state, self.message = "failed", "It broke off; the server's log says where."

    def _tell(self, progress: segclip.Progress) -> None:
        self.total, self.done, self.rate = (
            progress.total,
            progress.before + progress.now,
            progress.rate,
        )
        if self._stop.is_set():
            raise Cancelled
