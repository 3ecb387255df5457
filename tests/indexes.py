"""Folders of images for the search tests, what their indexes answer, and damage to files."""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from segclip import Index, IndexOptions
from segclip.search import checked, rows, snapshot
from segclip.search.build import INSIDE, Indexed
from tests.fakes import paint

DEEP = IndexOptions(regions=True)
FIVE = ("red", "green", "blue", "yellow", "black")  # the colours of the indexed squares
WEIRD: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**30,
    1e308,
    "",
    "..",
    "\ud800",
    [],
    [[]],
    {},
    {"a": 1},
    [None] * 9,
)


def draw(path: Path, *shapes: tuple[str, tuple[int, int, int, int]], taken: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = PIL.Image.Exif()
    if taken:
        exif[0x0132] = taken
    PIL.Image.fromarray(paint(*shapes).pixels).save(path, exif=exif)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the snapshot's files, prefixed with its name, which depends on the content."""
    place = snapshot.current(folder / ".segclip-index")
    return {f"{place.name}/{path.name}": path.read_bytes() for path in sorted(place.iterdir())}


def names(found: tuple[object, ...]) -> list[str]:
    return [match.name for match in found]  # type: ignore[attr-defined]


def changed(done: Indexed) -> tuple[int, int, int, int]:
    return done.progress.matched, done.progress.before, done.moved, done.removed


def square(path: Path, colour: str, side: int = 60) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(paint((colour, (5, 5, side, side)), size=(70, 70)).pixels).save(path)


def place(indexed: Path) -> Path:
    return indexed / INSIDE


def embedded(done: Indexed) -> tuple[int, int]:
    return done.progress.matched, done.progress.before


def answers(indexed: Path) -> list[tuple[Any, ...]]:
    index = Index(indexed)
    found = [index.search(colour, n=9, regions=deep) for colour in FIVE for deep in (False, True)]
    return [(m.name, m.similarity, m.region, m.box, m.size) for matches in found for m in matches]


def forge(indexed: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change pictures.json, and update the checksums as an attacker would."""
    folder = snapshot.current(place(indexed))
    facts = json.loads((folder / "pictures.json").read_text("utf-8"))
    change(facts)
    facts["files"] = checked.checksums(folder)
    (folder / "pictures.json").write_text(json.dumps(facts), "utf-8")
    crc = zlib.crc32((folder / "pictures.json").read_bytes())
    (place(indexed) / "current.json").write_text(
        json.dumps({"snapshot": folder.name, "checksum": crc})
    )


def put(key: str, value: Any, facts: dict[str, Any]) -> None:
    facts[key] = value


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def flip_one(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def stored_records(indexed: Path) -> dict[bytes, dict[str, Any]]:
    with closing(sqlite3.connect(place(indexed) / rows.NAME)) as table:
        found = table.execute("SELECT name, rest FROM outcomes").fetchall()
    return {name: json.loads(zlib.decompress(rest)) for name, rest in found}
