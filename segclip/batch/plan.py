"""Read what is to be done: a folder, a glob, a list or a table of pictures, and what each is asked."""

from __future__ import annotations

import csv
import glob
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import BadPrompt
from ..listing import SUFFIXES, is_image, list_images
from . import names
from .state import STATE, written

TABLES = (".csv", ".jsonl", ".txt")
_MAGIC = frozenset("*?[")
_OWN = "segclip-out"  # where segclip writes unless another folder is named

log = logging.getLogger(__name__)


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
    """Name one image of a run: its path, its name inside the input (relative, with "/"), and what it is asked.

    place: what its files are called, its name unless that would meet another's. folder: it is a folder that cannot be
    read, in the place of whatever images are in it.
    """

    path: Path
    name: str
    ask: Ask
    place: str = ""
    folder: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", self.place or self.name)


def read(source: str | Path, default: Ask, boxes: Path | None = None, *, out: Path | None = None) -> list[Item]:
    """List the pictures of a folder, a glob, a .txt list, or a .csv or .jsonl table of image, texts, boxes, points.

    The order is the same on every machine. What a row does not say comes from ``default``. boxes: a table of image and
    boxes for the pictures of those names. out: a folder that is never an input. Raises BadPrompt when there is no such
    place, when a picture is listed twice or is asked nothing.
    """
    path = Path(source)
    if path.is_dir():
        items = list(_walked(path, default, out))
    elif is_glob(source):
        items = list(_globbed(str(source), default, out))
    elif path.suffix.lower() in TABLES and path.is_file():
        items = list(_listed(path, default))
    elif path.suffix.lower() in SUFFIXES and path.exists():
        items = [Item(path, path.name, default)]
    else:
        kinds = f"a folder, a picture, a glob such as 'photos/**/*.jpg', or a {_words(TABLES)} file"
        raise BadPrompt(f"{source}: no such input; give {kinds}")
    if boxes:
        own = {item.name: item.ask.boxes for item in _listed(boxes, Ask())}
        if strange := own.keys() - {item.name for item in items}:
            raise BadPrompt(f"{boxes} names {min(strange)!r}, which is not in {source}")
        items = [replace(item, ask=replace(item.ask, boxes=own.get(item.name, item.ask.boxes))) for item in items]
    twice = [name for name, count in Counter(item.name for item in items).items() if count > 1]
    if twice:
        raise BadPrompt(f"{source} lists {twice[0]!r} twice; list each picture once, with all its texts")
    if nul := next((item.name for item in items if "\0" in item.name), None):
        raise BadPrompt(f"{source} lists {nul!r}; the name of a file holds no NUL")
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


def is_glob(source: str | Path) -> bool:
    """Decide whether an input is a pattern."""
    return bool(_MAGIC & set(str(source))) and not Path(source).exists()


def apart(items: list[Item]) -> list[Item]:
    """Give each image a place of its own, on file systems too that take A.jpg for a.jpg."""
    places = names.distinct({item.name: item.name for item in items})
    return [item if places[item.name] == item.name else replace(item, place=places[item.name]) for item in items]


def _walked(folder: Path, default: Ask, out: Path | None) -> Iterator[Item]:
    found = list_images(folder, skip=[out] if out else [])
    for line in replace(found, unreadable={}).report():
        log.warning("%s", line)
    earlier = _earlier(folder, out)
    listed = [(name, False) for name in found.images if name not in earlier]
    listed += [(name, True) for name in found.unreadable]
    for name, unreadable in sorted(listed, key=lambda pair: pair[0].split("/")):
        yield Item(folder / name, name, default, folder=unreadable)


def _earlier(folder: Path, out: Path | None) -> frozenset[str]:
    """Name what earlier runs wrote into a folder that is an input now; the journal of ``out`` itself knows better."""
    return frozenset() if out and os.path.realpath(folder) == os.path.realpath(out) else written(folder)


def _globbed(pattern: str, default: Ask, out: Path | None) -> Iterator[Item]:
    fixed = Path(*_until_magic(Path(pattern)))
    own: dict[Path, bool] = {fixed: False}
    outside = os.path.realpath(out) if out else None
    earlier = _earlier(fixed, out)

    def is_own(folder: Path) -> bool:
        if folder not in own:
            holds = folder.name == _OWN or (folder / STATE).is_dir() or os.path.realpath(folder) == outside
            own[folder] = folder != folder.parent and (holds or is_own(folder.parent))
        return own[folder]

    for path in map(Path, sorted(set(glob.glob(pattern, recursive=True)))):
        name = _name(path, fixed)
        if is_image(name) and name not in earlier and not path.is_dir() and not is_own(path.parent):
            yield Item(path, name, default)


def _name(path: Path, base: Path) -> str:
    """Return the name of an image inside a folder, or inside the root where it lies elsewhere; never with "..".

    Both names are made plain first, as text: "a/../../b" may lead out of any folder it is appended to.
    """
    full = os.path.abspath(path)
    name = Path(os.path.relpath(full, os.path.abspath(base)))
    return Path(*Path(full).parts[1:]).as_posix() if ".." in name.parts or name.is_absolute() else name.as_posix()


def _until_magic(path: Path) -> Iterator[str]:
    for part in path.parts[:-1]:
        if _MAGIC & set(part):
            return
        yield part


def _listed(table: Path, default: Ask) -> Iterator[Item]:
    base = table.parent
    for number, row in enumerate(_rows(table), 1):
        where = f"{table}, row {number}"
        image = row.get("image") or row.get("path")
        if not image:
            raise BadPrompt(f"{where}: it names no image; a column or key 'image' does")
        path = base / str(image)
        name = _name(path, base)
        own = {key: value for key, value in _ask(row, where).items() if value}
        yield Item(path, name, replace(default, **own))


def _rows(table: Path) -> Iterator[dict[str, Any]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            if table.suffix.lower() == ".csv":
                yield from csv.DictReader(file)
            elif table.suffix.lower() == ".jsonl":
                yield from (json.loads(line) for line in file if line.strip())
            else:
                yield from ({"image": line.strip()} for line in file if line.strip())
    except (ValueError, csv.Error) as error:
        raise BadPrompt(f"{table} cannot be read as a table: {error}") from None


def _ask(row: dict[str, Any], where: str) -> dict[str, Any]:
    try:
        texts = _values(row.get("texts", row.get("text")), ";")
        boxes, points = (_places(row.get(key)) for key in ("boxes", "points"))
    except (ValueError, TypeError) as error:
        raise BadPrompt(f"{where}: {error}") from None
    if any(len(box) != 4 for box in boxes):
        raise BadPrompt(f"{where}: a box is x1,y1,x2,y2")
    if any(len(point) not in (2, 3) for point in points):
        raise BadPrompt(f"{where}: a point is x,y or x,y,0")
    return {"texts": tuple(str(text) for text in texts), "boxes": boxes, "points": points}


def _values(told: Any, separator: str) -> list[Any]:
    """Read a list, a JSON list, or values separated by ``separator``."""
    if told is None or told == "":
        return []
    if isinstance(told, str):
        return (
            json.loads(told)
            if told.lstrip().startswith("[")
            else [v.strip() for v in told.split(separator) if v.strip()]
        )
    return list(told)


def _places(told: Any) -> tuple[tuple[float, ...], ...]:
    """Read [[1, 2, 3, 4], ...] or "1,2,3,4; 5,6,7,8"."""
    rows = [value.split(",") if isinstance(value, str) else value for value in _values(told, ";")]
    return tuple(tuple(float(number) for number in row) for row in rows)


def _words(suffixes: tuple[str, ...]) -> str:
    return f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
