"""Export many images in the background: with progress, cancellable and resumable."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

import segclip

from .. import files, models
from . import BackgroundJob
from .scratch import Scratch

_turn = Lock()  # one batch at a time, which leaves cores for interactive use


@dataclass(eq=False)
class Batch(BackgroundJob):
    """One user's batch: its images, folder and progress.

    images: their number. size: bytes of the images, unpacked.
    """

    images: int
    folder: Path
    size: int = 0

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

    def start(self, texts: Sequence[str], formats: Sequence[str], model: str) -> None:
        """Start or resume; finished images are not processed again.

        texts: if empty, every object is segmented. model: a preset, or PROPOSER + ENCODER.
        """
        if self.busy:
            return
        ask = segclip.Ask(everything=not texts)
        spec = segclip.ModelSpec(*models.parts(model))
        options = segclip.ExportOptions(tuple(formats), spec, ask=ask)
        self._begin(partial(self._run, options, tuple(texts)), "waiting")

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
        with self.outcome(), _turn:
            self.state = "running"
            place = self.folder / "in", self.folder / "out"
            summary = segclip.export(*place, texts, options=options, report=self._report)
            counts = [f"{count} {state}" for state, count in summary.states.items() if count]
            self.state, self.message = "done", ", ".join(counts)
