"""What goes on beside the pages: batches, indexing, training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

import segclip


class Cancelled(Exception):
    """Raised by the progress callback to stop a run; finished work is kept."""


@dataclass(eq=False, kw_only=True)
class BackgroundJob:
    """Work on many images in a thread of its own: how far it is, and how it ended.

    state: "ready", "waiting" for another job, "running", "cancelled", "done" or "failed".
    """

    state: str = "ready"
    message: str = ""
    done: int = 0
    rate: float = 0.0
    _stop: Event = field(default_factory=Event)
    _thread: Thread | None = None

    @property
    def busy(self) -> bool:
        """Return whether it is running or waiting for its turn."""
        return self._thread is not None and self._thread.is_alive()

    def cancel(self) -> None:
        """Stop after the current image; finished work is kept."""
        self._stop.set()

    def seconds_left(self, total: int) -> float:
        """Return the estimated time for the rest of ``total`` images; 0 before the first."""
        return (total - self.done) / self.rate if self.rate else 0.0

    def _begin(self, work: Callable[[], None], state: str) -> None:
        self._stop.clear()
        self.state, self.message = state, ""
        self._thread = Thread(target=work, daemon=True)
        self._thread.start()

    def _report(self, progress: segclip.Progress) -> None:
        self.done, self.rate = progress.before + progress.now, progress.rate
        if self._stop.is_set():
            raise Cancelled

    @contextmanager
    def outcome(self) -> Iterator[None]:
        """Record how the work inside ended, unless it did: no error leaves the job running."""
        try:
            yield
        except Cancelled:
            self.state = "cancelled"
        except (segclip.SegclipError, OSError) as problem:  # such as a full disk
            self.state, self.message = "failed", str(problem)
        finally:
            if self.state == "running":  # an unexpected error
                self.state, self.message = "failed", "Internal error; see the server's log."
