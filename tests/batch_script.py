"""Run an export with fake models in a process of its own: python -m tests.batch_script IN OUT KILL
WORKERS TEXT...

KILL: "no", or N to die by SIGKILL before the N-th time it changes the disk.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from segclip import batch, loading
from segclip.batch.journal import Journal
from segclip.scoring.scorers import CropScorer
from segclip.segmenter import Segmenter
from segclip.types import Image
from tests.fakes import FakeEncoder, FakeProposer

FORMATS = (
    "png",
    "cutout",
    "labelmap",
    "overlay",
    "npz",
    "labelme",
    "coco",
    "yolo",
    "jsonl",
    "parquet",
)


POISON = (1, 2, 3)  # a picture whose first pixel has this colour kills the process that looks at it


class DeadlyProposer(FakeProposer):
    """Die of POISON, as for want of memory."""

    def encode(self, image: Image) -> Any:
        """Look at the picture."""
        if tuple(image.pixels[0, 0]) == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(image)


def fake_load(*names: Any, **options: Any) -> Segmenter:
    encoder = FakeEncoder()
    return Segmenter(DeadlyProposer(), encoder, CropScorer(encoder))


def fake_fingerprint(*names: Any, **options: Any) -> dict[str, str]:
    return {"weights": "1"}


def put_fakes_in() -> None:
    """Let every segmenter of this process be a fake one."""
    loading.load = fake_load
    loading.fingerprint = fake_fingerprint


def die_after(count: int) -> Callable[[Any], Any]:
    """Kill this process before the count-th change it makes to the disk; answer what makes a call
    one.
    """
    left = [count]

    def counted(call: Any) -> Any:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return wrapped

    os.replace = counted(os.replace)
    os.unlink = counted(os.unlink)
    Journal.change = counted(Journal.change)  # type: ignore[method-assign]
    return counted


def main() -> None:
    put_fakes_in()
    source, out, kill, workers, *texts = sys.argv[1:]
    if kill != "no":
        die_after(int(kill))
    options = batch.ExportOptions(formats=FORMATS)
    summary = batch.export(
        source, out, texts, options=options, running=batch.Running(workers=int(workers))
    )
    assert summary.missing == 0


if __name__ == "__mp_main__":  # a process of a pool
    put_fakes_in()
if __name__ == "__main__":
    main()
