"""Read what is to be done: a folder, a glob, a list or a table of pictures, and what each is asked."""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from .. import lines, tables
from ..errors import BadPrompt
from ..images import SUFFIXES
from ..tables import Columns, Row

TABLES = (".csv", ".jsonl", ".tsv", ".txt")
COLUMNS = Columns(
    known={"image": ("image", "path"), "texts": ("texts", "text"), "boxes": ("boxes",), "points": ("points",)},
    needed=("image",),
)
BOXES = Columns(known={"image": ("image", "path"), "boxes": ("boxes",)}, needed=("image", "boxes"))
_MAGIC = frozenset("*?[")


@dataclass(frozen=True)
class Ask:
    """Say what one picture is asked: texts, and boxes x1, y1, x2, y2 and clicks x, y, label, to look in or cut out.

    everything: every object, where there are neither texts nor a click on an object.
    """

    texts: tuple[str, ...] = ()
    boxes: tuple[tuple[float, ...], ...] = ()
    points: tuple[tuple[float, ...], ...] = ()
    everything: bool = False

    def __bool__(self) -> bool:
        return bool(self.texts or self.boxes or self.points or self.everything)


@dataclass(frozen=True)
class Item:
    """Name one picture of a run: its path, its name inside the output (relative, with "/"), and what it is asked."""

    path: Path
    name: str
    ask: Ask


def read(source: str | Path, default: Ask, boxes: Path | None = None) -> list[Item]:
    """List the pictures of a folder, a glob, a .txt list, or a .csv, .tsv or .jsonl table of COLUMNS.

    The order is the same on every machine. What a row does not say comes from ``default``. boxes: a table of image and
    boxes for the pictures of those names. Raises BadPrompt when there is no such place, when a picture is listed twice
    or is asked nothing.
    """
    path = Path(source)
    if path.is_dir():
        items = [Item(path / name, name, default) for name in walk(path)]
    elif _MAGIC & set(str(source)) and not path.exists():
        items = list(_globbed(str(source), default))
    elif path.suffix.lower() in TABLES and path.is_file():
        items = list(_listed(path, default))
    elif path.suffix.lower() in SUFFIXES and path.exists():
        items = [Item(path, path.name, default)]
    else:
        kinds = f"a folder, a picture, a glob such as 'photos/**/*.jpg', or a {_words(TABLES)} file"
        raise BadPrompt(f"{source}: no such input; give {kinds}")
    if boxes:
        own = {item.name: item.ask.boxes for item in _listed(boxes, Ask(), BOXES)}
        if strange := own.keys() - {item.name for item in items}:
            raise BadPrompt(f"{boxes} names {min(strange)!r}, which is not in {source}")
        items = [replace(item, ask=replace(item.ask, boxes=own.get(item.name, item.ask.boxes))) for item in items]
    twice = [name for name, count in Counter(item.name for item in items).items() if count > 1]
    if twice:
        raise BadPrompt(f"{source} lists {twice[0]!r} twice; list each picture once, with all its texts")
    silent = next((item for item in items if not item.ask), None)
    if silent:
        raise BadPrompt(
            f"nothing is asked of {silent.name!r}; give --text, --everything, or texts, boxes or points in its row"
        )
    return items


def shard(items: list[Item], part: str) -> list[Item]:
    """Give part "i/n" of a run, every n-th picture from the i-th on, i from 1. Raises BadPrompt."""
    first, slash, count = part.partition("/")
    if not slash or not first.isdigit() or not count.isdigit() or not 1 <= int(first) <= int(count):
        raise BadPrompt(f"a shard is written i/n with i from 1 to n, such as 3/8; got {part!r}")
    return items[int(first) - 1 :: int(count)]


def digest(ask: Ask, settings: dict[str, Any]) -> str:
    """Give a short hash of everything but the picture that changes the answer."""
    asked = [ask.texts, ask.boxes, ask.points] + [True] * ask.everything
    told = json.dumps([settings, *asked], sort_keys=True, default=str)
    return sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def walk(folder: Path) -> list[str]:
    """List by suffix; links that lead nowhere too, which become failures that are told, but not into linked folders."""
    found = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        base = Path(place).relative_to(folder)
        found += [(base / name) for name in files if Path(name).suffix.lower() in SUFFIXES]
    return [path.as_posix() for path in sorted(found, key=lambda path: path.parts)]


def _globbed(pattern: str, default: Ask) -> Iterator[Item]:
    fixed = Path(*_until_magic(Path(pattern)))
    for name in sorted(glob.glob(pattern, recursive=True)):
        path = Path(name)
        if path.suffix.lower() in SUFFIXES and not path.is_dir():
            yield Item(path, path.relative_to(fixed).as_posix(), default)


def _until_magic(path: Path) -> Iterator[str]:
    for part in path.parts[:-1]:
        if _MAGIC & set(part):
            return
        yield part


def _listed(table: Path, default: Ask, columns: Columns = COLUMNS) -> Iterator[Item]:
    base = table.parent
    for row in _rows(table, columns):
        image = row.text("image") or row.refuse("it names no image", "image")
        path = base / image
        name = Path(os.path.relpath(path, base)).as_posix()
        if name.startswith("../") or Path(name).is_absolute():
            name = Path(*path.absolute().parts[1:]).as_posix()
        own = {
            "texts": row.texts("texts"),
            "boxes": row.places("boxes", (4,), "a box x1,y1,x2,y2"),
            "points": row.places("points", (2, 3), "a point x,y or x,y,0"),
        }
        given: dict[str, Any] = {key: value for key, value in own.items() if value}
        yield Item(path, name, replace(default, **given))


def _rows(table: Path, columns: Columns) -> Iterator[Row]:
    if table.suffix.lower() != ".txt":
        yield from tables.read(table, columns)
        return
    for number, (line, name) in enumerate(lines.numbered(lines.read_text(table, "the list")), 1):
        yield Row(table, number, line, {"image": name})


def _words(suffixes: tuple[str, ...]) -> str:
    return f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
