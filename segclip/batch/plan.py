"""Read what is to be done: a folder, a glob, a list or a table of pictures, and what each is
asked.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import BadPrompt, BadTable
from ..files import lines, outputs, tables
from ..files.listing import IMAGE_SUFFIXES, Listing, is_magic, list_images, match
from ..files.tables import Columns, Row
from ..question import unique
from . import names
from .state import STATE, written

TABLES = (".csv", ".jsonl", ".tsv", ".txt")
COLUMNS = Columns(
    known={
        "image": ("image", "path"),
        "texts": ("texts", "text"),
        "boxes": ("boxes",),
        "points": ("points",),
    },
    needed=("image",),
)
BOXES = Columns(known={"image": ("image", "path"), "boxes": ("boxes",)}, needed=("image", "boxes"))
_OWN = "segclip-out"  # where segclip writes unless another folder is named

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ask:
    """Say what one picture is asked: texts, and boxes x1, y1, x2, y2 and clicks x, y, label, to
    look in or cut out.

    everything: every object, where there are neither texts nor a click on an object. Texts are read
    as ``question.unique`` does, and are the names that answers carry. Raises BadPrompt.
    """

    texts: tuple[str, ...] = ()
    boxes: tuple[tuple[float, ...], ...] = ()
    points: tuple[tuple[float, ...], ...] = ()
    everything: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", unique(self.texts))

    def __bool__(self) -> bool:
        return bool(self.texts or self.boxes or self.points or self.everything)


@dataclass(frozen=True)
class Item:
    """Name one image of a run: its path, its name inside the input (relative, with "/"), and what
    it is asked.

    place: what its files are called, its name unless that would meet another's. folder: it is a
    folder that cannot be read, in the place of whatever images are in it.
    """

    path: Path
    name: str
    ask: Ask
    place: str = ""
    folder: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", self.place or self.name)


def read(
    source: str | Path, default: Ask, boxes: Path | None = None, *, out: Path | None = None
) -> list[Item]:
    """List the pictures of a folder, a glob, a .txt list, or a .csv, .tsv or .jsonl table of
    COLUMNS.

    The order is the same on every machine. What a row does not say comes from ``default``. boxes: a
    table of image and boxes for the pictures of those names. out: a folder that is never an input.
    Raises BadPrompt when there is no such place, when a picture is listed twice or is asked
    nothing.
    """
    path = Path(source)
    if path.is_dir():
        items = list(_walked(path, default, out))
    elif is_glob(source):
        items = list(_globbed(str(source), default, out))
    elif path.suffix.lower() in TABLES and path.is_file():
        items = list(_listed(path, default))
    elif path.suffix.lower() in IMAGE_SUFFIXES and path.exists():
        items = [Item(path, path.name, default)]
    else:
        kinds = f"a folder, a picture, a glob such as 'photos/**/*.jpg', or a {_words(TABLES)} file"
        raise BadPrompt(f"{source}: no such input; give {kinds}")
    if boxes:
        own = {item.name: item.ask.boxes for item in _listed(boxes, Ask(), BOXES)}
        if not own:
            raise BadTable(
                f"{boxes} lists no boxes; give a row for each image, with its name and its boxes"
            )
        if strange := own.keys() - {item.name for item in items}:
            raise BadPrompt(f"{boxes} names {min(strange)!r}, which is not in {source}")
        items = [
            replace(item, ask=replace(item.ask, boxes=own.get(item.name, item.ask.boxes)))
            for item in items
        ]
    twice = [name for name, count in Counter(item.name for item in items).items() if count > 1]
    if twice:
        raise BadPrompt(
            f"{source} lists {twice[0]!r} twice; list each picture once, with all its texts"
        )
    if nul := next((item.name for item in items if "\0" in item.name), None):
        raise BadPrompt(f"{source} lists {nul!r}; the name of a file holds no NUL")
    silent = next((item for item in items if not item.ask), None)
    if silent:
        raise BadPrompt(
            f"nothing is asked of {silent.name!r}; give --text, --everything, or texts, boxes or "
            "points in its row"
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
    return is_magic(str(source)) and not Path(source).exists()


def apart(items: list[Item]) -> list[Item]:
    """Return images with a place of their own each, on file systems too that take A.jpg for
    a.jpg.
    """
    if odd := [item.name for item in items if names.spelt(item.name) != item.name]:
        problem = (
            "the names of %d images, such as %s, are not UTF-8, which many programs need; "
            "rename them"
        )
        log.warning(problem, len(odd), names.spelt(odd[0]))
    places = names.distinct({item.name: names.fitting(item.name) for item in items})
    return [
        item if places[item.name] == item.name else replace(item, place=places[item.name])
        for item in items
    ]


def _walked(folder: Path, default: Ask, out: Path | None) -> Iterator[Item]:
    found = list_images(folder, skip=[out] if out else [])
    _report(replace(found, unreadable={}))
    earlier = _earlier(folder, out)
    listed = [(name, False) for name in found.images if name not in earlier]
    listed += [(name, True) for name in found.unreadable]
    for name, unreadable in sorted(listed, key=lambda pair: pair[0].split("/")):
        yield Item(folder / name, name, default, folder=unreadable)


def _report(listing: Listing) -> None:
    for line in listing.report():
        log.warning("%s", line)


def _earlier(folder: Path, out: Path | None) -> frozenset[str]:
    """Name what earlier runs wrote into a folder that is an input now; the journal of ``out``
    itself knows better.
    """
    return (
        frozenset()
        if out and os.path.realpath(folder) == os.path.realpath(out)
        else written(folder)
    )


def _globbed(pattern: str, default: Ask, out: Path | None) -> Iterator[Item]:
    whole = Path(pattern)
    fixed = Path(*_until_magic(whole))
    matched = match(fixed, whole.parts[len(fixed.parts) :])
    _report(replace(matched, unreadable={}))
    own: dict[Path, bool] = {fixed: False}
    outside = os.path.realpath(out) if out else None
    earlier = _earlier(fixed, out)

    def is_own(folder: Path) -> bool:
        if folder not in own:
            holds = (
                folder.name == _OWN
                or (folder / STATE).is_dir()
                or os.path.realpath(folder) == outside
            )
            own[folder] = folder != folder.parent and (holds or is_own(folder.parent))
        return own[folder]

    masks = cache(outputs.written)  # what other commands left beside the images
    for path in (fixed / name for name in matched.images):
        name = _name(path, fixed)
        ours = name in earlier or is_own(path.parent) or path.name in masks(path.parent)
        if not ours and not path.is_dir():
            yield Item(path, name, default)
    for path in (fixed / name for name in matched.unreadable):
        if not is_own(path.parent):
            yield Item(path, _name(path, fixed), default, folder=True)


def _name(path: Path, base: Path) -> str:
    """Return the name of an image inside a folder, or inside the root where it lies elsewhere;
    never with "..".

    Both names are made plain first, as text: "a/../../b" may lead out of any folder it is appended
    to.
    """
    full = os.path.abspath(path)
    name = Path(os.path.relpath(full, os.path.abspath(base)))
    return (
        Path(*Path(full).parts[1:]).as_posix()
        if ".." in name.parts or name.is_absolute()
        else name.as_posix()
    )


def _until_magic(path: Path) -> Iterator[str]:
    for part in path.parts[:-1]:
        if is_magic(part):
            return
        yield part


def _listed(table: Path, default: Ask, columns: Columns = COLUMNS) -> Iterator[Item]:
    base = table.parent
    for row in _rows(table, columns):
        image = row.text("image") or row.refuse("it names no image", "image")
        path = base / image
        name = _name(path, base)
        own = {
            "texts": row.texts("texts"),
            "boxes": row.places("boxes", (4,), "a box x1,y1,x2,y2"),
            "points": row.places("points", (2, 3), "a point x,y or x,y,0"),
        }
        given: dict[str, Any] = {key: value for key, value in own.items() if value}
        try:
            ask = replace(default, **given)
        except BadPrompt as error:
            row.refuse(str(error), "texts")
        yield Item(path, name, ask)


def _rows(table: Path, columns: Columns) -> Iterator[Row]:
    if table.suffix.lower() != ".txt":
        yield from tables.read(table, columns)
        return
    for number, (line, name) in enumerate(lines.numbered(lines.read_text(table, "the list")), 1):
        yield Row(table, number, line, {"image": name})


def _words(suffixes: tuple[str, ...]) -> str:
    return f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
