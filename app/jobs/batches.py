"""Export many images in the background: with progress, cancellable and resumable."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread

import segclip

from .. import files, models
from . import Cancelled, outcome_of
from .scratch import Scratch

_turn = Lock()  # one batch at a time, which leaves cores for interactive use


@dataclass(eq=False)
class Batch:
    """One user's batch: its images, folder and progress.

    images: their number. size: bytes of the images, unpacked. state: "ready", "waiting" for another
    batch, "running", "cancelled", "done" or "failed".
    """

    images: int
    folder: Path
    size: int = 0
    state: str = "ready"
    done: int = 0
    rate: float = 0.0
    message: str = ""
    _stop: Event = field(default_factory=Event)
    _thread: Thread | None = None

    @classmethod
    def unpacked(
        cls, data: bytes, scratch: Scratch | None = None, *, most: int = files.MOST_BYTES
    ) -> Batch:
        """Unpack a zip of images to a new folder.

        scratch: parent of that folder; the system's temporary folder if None. most: bytes of
        images. Raises BadImage, NotWritable, and then leaves nothing behind.
        """
        folder = scratch.folder() if scratch else Path(tempfile.mkdtemp(prefix="segclip-"))
        try:
            count = files.unpack(data, folder / "in", most=most)
        except segclip.SegclipError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        unpacked = (path.stat().st_size for path in (folder / "in").rglob("*") if path.is_file())
        return cls(count, folder, sum(unpacked))

    @property
    def busy(self) -> bool:
        """Return whether it is running or waiting for its turn."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, texts: Sequence[str], formats: Sequence[str], model: str) -> None:
        """Start or resume; finished images are not processed again.

        texts: if empty, every object is segmented. model: a preset, or PROPOSER + ENCODER.
        """
        if self.busy:
            return
        self._stop.clear()
        self.state, self.message = "waiting", ""
        ask = segclip.Ask(everything=not texts)
        spec = segclip.ModelSpec(*models.parts(model))
        options = segclip.ExportOptions(tuple(formats), spec, ask=ask)
        self._thread = Thread(target=self._run, args=(options, tuple(texts)), daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Stop after the current image."""
        self._stop.set()

    def result(self) -> bytes:
        """Return a zip of all files written so far."""
        out = self.folder / "out"
        paths = sorted(
            path for path in out.rglob("*") if path.is_file() and ".segclip" not in path.parts
        )
        return files.zip_files(paths, out)

    def remove(self, patience: float | None = None) -> None:
        """Stop, then delete the files. patience: seconds to wait for that, None for no limit."""
        self.cancel()
        if self._thread is not None:
            self._thread.join(patience)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, options: segclip.ExportOptions, texts: tuple[str, ...]) -> None:
        with outcome_of(self), _turn:
            self.state = "running"
            place = self.folder / "in", self.folder / "out"
            summary = segclip.export(*place, texts, options=options, report=self._report)
            counts = [f"{count} {state}" for state, count in summary.states.items() if count]
            self.state, self.message = "done", ", ".join(counts)

    def _report(self, progress: segclip.Progress) -> None:
        self.done, self.rate = progress.before + progress.now, progress.rate
        if self._stop.is_set():
            raise Cancelled
