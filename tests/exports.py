"""What the tests of the batch export share: a small folder of images, runs with fake models, and
trees to compare.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image

from segclip.batch import ExportOptions, Running, Summary, export
from tests import batch_script
from tests.fakes import paint

TEXTS = ("a red square", "a blue square")
FORMATS = ("png", "npz", "coco", "yolo", "parquet")


def draw(path: Path, *colours: str) -> None:
    """Write a small image of squares beside one another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = [(colour, (4 + 20 * n, 4, 20 + 20 * n, 22)) for n, colour in enumerate(colours)]
    PIL.Image.fromarray(paint(*shapes, size=(26, 64)).pixels).save(path)


def photos(folder: Path) -> Path:
    """Make a folder of five images: some match both of TEXTS, some one, one nothing."""
    draw(folder / "a.png", "red", "blue", "red")
    draw(folder / "b.png", "blue")
    draw(folder / "c.jpg", "green")
    draw(folder / "sub dir" / "d.png", "red", "green")
    draw(folder / "sub dir" / "e é.gif", "red", "red", "blue")
    return folder


def run(
    source: Path | str, out: Path, *texts: str, formats: tuple[str, ...] = FORMATS, **running: Any
) -> Summary:
    """Export with fake models."""
    return export(
        source,
        out,
        texts or TEXTS,
        options=ExportOptions(formats=formats),
        running=Running(**running),
    )


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file of an output, and every folder as such, but the state folder's."""
    found = {
        path.relative_to(folder).as_posix(): _content(path) for path in sorted(folder.rglob("*"))
    }
    return {name: content for name, content in found.items() if not name.startswith(".segclip")}


def snapshot(folder: Path, *, but: Path | None = None) -> dict[str, str]:
    """Return a hash of everything below a folder, but for ``but`` and what is below it."""
    paths = (path for path in sorted(folder.rglob("*")) if but not in (path, *path.parents))
    return {str(path): hashlib.sha256(_content(path)).hexdigest() for path in paths}


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return b"link " + os.readlink(path).encode()
    return b"folder" if path.is_dir() else path.read_bytes()


def in_child(call: Callable[[], object], die_before: int = 0) -> int:
    """Call something in a forked process that dies before its n-th change to the disk; return its
    exit code.
    """
    child = os.fork()
    if child == 0:
        try:
            if die_before:
                batch_script.die_after(die_before)
            call()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
