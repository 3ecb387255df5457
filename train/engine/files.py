"""Write the images of data sets that recipes make, and clear away what killed runs leave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from segclip.errors import NotWritable
from segclip.files import atomic
from segclip.types import Array

MARK = ".segclip-made"  # in a folder whose files recipes write


def claim(folder: Path) -> None:
    """Make a folder for the files of a recipe, or take one that a recipe made.

    Raises NotWritable for a folder that holds anything else: its files may have the names of those
    to be written.
    """
    if folder.is_dir() and not (folder / MARK).exists() and any(folder.iterdir()):
        raise NotWritable(
            f"{folder} holds files that no recipe wrote; name an empty folder or a new one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write(folder / MARK, b"")


def sweep(*folders: Path) -> None:
    """Remove the files that a killed process was writing into folders of a run, which only one
    process writes to.
    """
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            if atomic.is_leftover(path):
                path.unlink(missing_ok=True)


def write_image(path: Path, pixels: Array, settings: Sequence[int] = ()) -> None:
    """Write uint8 (H, W, 3) RGB whole or not at all, in the format of the suffix; OpenCV's own
    writer fails silently.

    settings: OpenCV's, of the encoder. Not waited for: whoever writes the table last syncs that.
    Raises NotWritable.
    """
    sound, coded = cv2.imencode(path.suffix, pixels[..., ::-1], list(settings))
    if not sound:
        raise NotWritable(f"{path}: cannot be written as {path.suffix}")
    atomic.write(path, coded.tobytes(), sync=False)
