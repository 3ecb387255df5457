"""Write images of generated data sets, and remove temporary files that killed runs leave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from segclip.errors import NotWritable
from segclip.files import atomic
from segclip.types import Array

MARK = ".segclip-made"  # in folders that recipes create


def claim(folder: Path) -> None:
    """Create a folder for a recipe's output, or reuse one that a recipe created.

    Raises NotWritable for a folder with any other files, which could be overwritten.
    """
    if folder.is_dir() and not (folder / MARK).exists() and any(folder.iterdir()):
        raise NotWritable(
            f"{folder} holds files that no recipe wrote; choose an empty or new folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write(folder / MARK, b"")


def sweep(*folders: Path) -> None:
    """Remove temporary files of killed processes from a run's folders.

    Only one process may be writing to them.
    """
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            if atomic.is_leftover(path):
                path.unlink(missing_ok=True)


def write_image(path: Path, pixels: Array, settings: Sequence[int] = ()) -> None:
    """Write uint8 (H, W, 3) RGB atomically in the format of the suffix. Raises NotWritable.

    OpenCV's own writer fails silently. settings: of OpenCV's encoder. The file is not synced: the
    table that is written last is.
    """
    sound, coded = cv2.imencode(path.suffix, pixels[..., ::-1], list(settings))
    if not sound:
        raise NotWritable(f"{path}: cannot be written as {path.suffix}")
    atomic.write(path, coded.tobytes(), sync=False)
