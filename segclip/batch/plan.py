"""Read the inputs of a run: a folder, glob, list or table of images, with the prompts of each."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..errors import BadPrompt, BadTable
from ..files import lines, outputs, tables
from ..files.listing import IMAGE_SUFFIXES, Listing, by_folder, is_magic, list_images, match
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
_OWN = "segclip-out"  # the default output folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ask:
    """Texts of one image, and boxes x1, y1, x2, y2 and points x, y, label to search or cut out.

    everything: every object, if there are neither texts nor a foreground point. Texts are
    normalised by ``question.unique``, and results carry them in that form. Raises BadPrompt.
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
    """One image of a run: path, name inside the input (relative, with "/"), and prompts.

    place: base name of its output files; its name unless that collides with another's. folder: an
    unreadable folder, listed in place of the images in it.
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
    """List the images of a folder, a glob, a .txt list, or a .csv, .tsv or .jsonl table of COLUMNS.

    The order is the same on every machine. ``default`` fills what a row leaves out. boxes: a table
    of boxes by image name. out: a folder that is never an input. Raises BadPrompt if the source
    does not exist or an image has no prompt, and BadTable for an invalid list or table.
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
        raise BadPrompt(
            f"{source}: no such input; give a folder, an image, a glob such as "
            f"'photos/**/*.jpg', or a {', '.join(TABLES[:-1])} or {TABLES[-1]} file"
        )
    if boxes:
        items = _with_boxes(items, boxes, source)
    _check(items, source)
    return items


def _with_boxes(items: list[Item], boxes: Path, source: str | Path) -> list[Item]:
    """Attach to each image the boxes of its row in a table. Raises BadTable."""
    own = {item.name: item.ask.boxes for item in _listed(boxes, Ask(), BOXES)}
    if not own:
        raise BadTable(
            f"{boxes} lists no boxes; give a row for each image, with its name and its boxes"
        )
    if unknown := own.keys() - {item.name for item in items}:
        raise BadTable(f"{boxes} names {min(unknown)!r}, which is not in {source}")
    return [
        replace(item, ask=replace(item.ask, boxes=own.get(item.name, item.ask.boxes)))
        for item in items
    ]


def _check(items: list[Item], source: str | Path) -> None:
    """Reject images that are listed twice, cannot exist, or have no prompt."""
    twice = [name for name, count in Counter(item.name for item in items).items() if count > 1]
    if twice:
        raise BadTable(
            f"{source} lists {twice[0]!r} twice; list each image once, with all its texts"
        )
    if nul := next((item.name for item in items if "\0" in item.name), None):
        raise BadTable(f"{source} lists {nul!r}; a file name cannot contain a NUL")
    unprompted = next((item for item in items if not item.ask), None)
    if unprompted:
        raise BadPrompt(
            f"no text, box or point was given for {unprompted.name!r}; give --text, --everything, "
            "or texts, boxes or points in its row"
        )


def shard(items: list[Item], part: str) -> list[Item]:
    """Return part "i/n" of a run: every n-th image from the i-th on, i from 1. Raises BadPrompt."""
    first, slash, count = part.partition("/")
    if not slash or not first.isdigit() or not count.isdigit() or not 1 <= int(first) <= int(count):
        raise BadPrompt(f"a shard is written i/n with i from 1 to n, such as 3/8; got {part!r}")
    return items[int(first) - 1 :: int(count)]


def digest(ask: Ask, settings: dict[str, Any]) -> str:
    """Return a short hash of everything, other than the image, that changes the result."""
    prompts = [ask.texts, ask.boxes, ask.points] + [True] * ask.everything
    text = json.dumps([settings, *prompts], sort_keys=True, default=str)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def is_glob(source: str | Path) -> bool:
    """Return whether an input is a glob pattern."""
    return is_magic(str(source)) and not Path(source).exists()


def apart(items: list[Item]) -> list[Item]:
    """Assign each image a unique output name, also for file systems that ignore case."""
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
    warn_left_out(found)
    earlier = _earlier(folder, out)
    listed = [(name, False) for name in found.images if name not in earlier]
    listed += [(name, True) for name in found.unreadable]
    for name, unreadable in sorted(listed, key=lambda pair: by_folder(pair[0])):
        yield Item(folder / name, name, default, folder=unreadable)


def warn_left_out(listing: Listing) -> None:
    """Log what a listing left out; unreadable folders become failures, reported elsewhere."""
    for line in replace(listing, unreadable={}).report():
        log.warning("%s", line)


def _earlier(folder: Path, out: Path | None) -> frozenset[str]:
    """Return the names of files that earlier runs wrote into an input folder.

    Empty if the folder is ``out`` itself, whose journal is more exact.
    """
    return (
        frozenset()
        if out and os.path.realpath(folder) == os.path.realpath(out)
        else written(folder)
    )


def _globbed(pattern: str, default: Ask, out: Path | None) -> Iterator[Item]:
    whole = Path(pattern)
    fixed = Path(*takewhile(lambda part: not is_magic(part), whole.parts[:-1]))
    matched = match(fixed, whole.parts[len(fixed.parts) :])
    warn_left_out(matched)
    own: dict[Path, bool] = {fixed: False}  # the folder that the user named counts as an input
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

    masks = cache(outputs.written)  # outputs of other commands beside the images
    for path in (fixed / name for name in matched.images):
        name = _name(path, fixed)
        ours = name in earlier or is_own(path.parent) or path.name in masks(path.parent)
        if not ours and not path.is_dir():
            yield Item(path, name, default)
    for path in (fixed / name for name in matched.unreadable):
        if not is_own(path.parent):
            yield Item(path, _name(path, fixed), default, folder=True)


def _name(path: Path, base: Path) -> str:
    """Return an image's name relative to a folder, or to the root if outside; without "..".

    Both paths are normalised as text first: "a/../../b" may lead out of any folder.
    """
    full = os.path.abspath(path)
    name = Path(os.path.relpath(full, os.path.abspath(base)))
    return (
        Path(*Path(full).parts[1:]).as_posix()
        if ".." in name.parts or name.is_absolute()
        else name.as_posix()
    )


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
