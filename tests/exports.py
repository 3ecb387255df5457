"""Helpers of the batch export tests: a small folder of images, runs with fake models, trees."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image

from segclip import batch
from segclip.batch import Answers, ExportOptions, Running, Summary, export
from tests import batch_script
from tests.fakes import paint

TEXTS = ("a red square", "a blue square")
FORMATS = ("png", "npz", "coco", "yolo", "parquet")


def draw(path: Path, *colours: str) -> None:
    """Write a small image of squares in a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = [(colour, (4 + 20 * n, 4, 20 + 20 * n, 22)) for n, colour in enumerate(colours)]
    PIL.Image.fromarray(paint(*shapes, size=(26, 64)).pixels).save(path)


def photos(folder: Path) -> Path:
    """Make a folder of five images: some match both TEXTS, some one, one none."""
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


def run_all(source: Path | str, out: Path, *texts: str, **running: Any) -> Summary:
    """Export with fake models to every format."""
    return run(source, out, *texts, formats=batch_script.FORMATS, **running)


def failures(out: Path) -> dict[str, str]:
    """Return the reasons of failures.jsonl by image."""
    lines = (out / "failures.jsonl").read_text("utf-8").splitlines()
    return {row["image"]: row["reason"] for row in map(json.loads, lines)}


def tree(folder: Path) -> dict[str, bytes]:
    """Return the files and folders of an output, except the state folder's."""
    found = {
        path.relative_to(folder).as_posix(): _content(path) for path in sorted(folder.rglob("*"))
    }
    return {name: content for name, content in found.items() if not name.startswith(".segclip")}


def snapshot(folder: Path, *, but: Path | None = None) -> dict[str, str]:
    """Return hashes of everything below a folder, except ``but`` and its content."""
    paths = (path for path in sorted(folder.rglob("*")) if but not in (path, *path.parents))
    return {str(path): hashlib.sha256(_content(path)).hexdigest() for path in paths}


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return b"link " + os.readlink(path).encode()
    return b"folder" if path.is_dir() else path.read_bytes()


def in_child(call: Callable[[], object], die_before: int = 0) -> int:
    """Call in a forked process that dies before its n-th disk change; return its exit code."""
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


ROOT = Path(__file__).parents[1]


def export_in_a_process(
    photos: Path, out: Path, kill: str = "no", workers: int = 1
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "tests.batch_script",
        str(photos),
        str(out),
        kill,
        str(workers),
        *TEXTS,
    ]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, check=False, text=True, timeout=240
    )


def export_with(
    folder: Path, out: Path, *texts: str, formats: tuple[str, ...] = FORMATS, **answers: Any
) -> batch.Summary:
    """Export with other options than the texts."""
    options = ExportOptions(formats=formats, answers=Answers(**answers))
    return export(folder, out, texts or TEXTS, options=options)
