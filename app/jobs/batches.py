"""Run exports of many pictures beside the pages: with progress, cancelled and taken up again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread

import segclip

from .. import files, models
from .scratch import Scratch

_turn = Lock()  # one batch at a time: the machine's cores are for those who click


class Cancelled(Exception):
    """End a run from within; what is done stays done."""


@dataclass(eq=False)
class Batch:
    """Hold one person's batch: pictures, where the files go, how far it is.

    size: bytes of the images, unpacked. state: "ready", "waiting" for another's, "running",
    "cancelled", "done" or "failed".
    """

    pictures: int
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
        """Unpack a zip of images to a folder of its own.

        scratch: where that folder lies; the system's place for temporary files if left out. most:
        bytes of images. Raises BadImage, NotWritable, and leaves nothing then.
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
        """Tell whether it runs or waits for its turn."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, texts: Sequence[str], formats: Sequence[str], model: str) -> None:
        """Run, or go on: what is done is not done again.

        texts: none cuts out every object. model: a preset, or PROPOSER + ENCODER.
        """
        if self.busy:
            return
        self._stop.clear()
        self.state, self.message = "waiting", ""
        proposer, encoder = models.parts(model)
        ask = segclip.Ask(everything=not texts)
        options = segclip.ExportOptions(
            formats=tuple(formats), proposer=proposer, encoder=encoder, ask=ask
        )
        self._thread = Thread(target=self._run, args=(options, tuple(texts)), daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Stop after the picture being done."""
        self._stop.set()

    def result(self) -> bytes:
        """Give everything written so far as a zip."""
        out = self.folder / "out"
        paths = sorted(
            path for path in out.rglob("*") if path.is_file() and ".segclip" not in path.parts
        )
        return files.zip_files(paths, out)

    def remove(self, patience: float | None = None) -> None:
        """Stop, and delete the files once it has; patience: seconds to wait for that, None for as
        long as it takes.
        """
        self.cancel()
        if self._thread is not None:
            self._thread.join(patience)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, options: segclip.ExportOptions, texts: tuple[str, ...]) -> None:
        try:
            with _turn:
                self.state = "running"
                summary = segclip.export(
                    self.folder / "in",
                    self.folder / "out",
                    texts,
                    options=options,
                    tell=self._tell,
                )
            counts = ", ".join(
                f"{count} {state}" for state, count in summary.states.items() if count
            )
            self.state, self.message = "done", counts
        except Cancelled:
            self.state = "cancelled"
        except (segclip.SegclipError, OSError) as problem:  # a full disk, say
            self.state, self.message = "failed", str(problem)
        finally:
            if self.state == "running":  # what nobody foresaw
                self.state, self.message = "failed", "It broke off; the server's log says where."

    def _tell(self, progress: segclip.Progress) -> None:
        self.done, self.rate = progress.before + progress.now, progress.rate
        if self._stop.is_set():
            raise Cancelled
