"""Read COCO instance annotations, validating the whole file before any of it is used.

Every defect raises a BadTable naming the file, row and field, the value, and what was expected.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn, TypeAlias

import numpy as np
from pycocotools import mask as coco_mask

from ..errors import BadTable
from ..question import MAX_PIXELS
from ..types import Array, Masks
from . import lines, rle, tables

_SHORT = reprlib.Repr()
_SHORT.maxstring = 60

Key: TypeAlias = "int | str"
MAX_OUTLINE = 4_000_000  # px of outline per object; pycocotools takes 100 bytes for each
MAX_MASKS = 4_000_000_000  # bytes of an image's masks, each cropped to its box


@dataclass(frozen=True)
class Category:
    """A category: its name and its synonyms, ``texts``."""

    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class ImageRow:
    """An image of a table.

    name: relative to the folder of images. size: (H, W). absent: names of objects that are not in
    the image, None if unspecified. licence: its name. url: where the image was published. source:
    its collection. The last three are "" if unspecified.
    """

    key: Key
    name: str
    size: tuple[int, int]
    absent: tuple[str, ...] | None
    licence: str
    url: str
    source: str


@dataclass(frozen=True, slots=True)
class Place:
    """The location of a row, for messages; formatted only when needed."""

    table: object
    rows: str
    number: int
    id: object

    def __str__(self) -> str:
        own = "" if self.id is None else f" (id {_brief(self.id)})"
        return f"{self.table}, {self.rows}[{self.number}]{own}"


@dataclass(frozen=True, eq=False)
class Thing:
    """An annotated object.

    where: its location in the table, for messages. box: x, y, width, height. outlines: float64
    (K, 2) polygons; if empty, counts is a run-length encoding. askable, key: None if unspecified.
    """

    where: object
    category: Key
    box: tuple[float, ...]
    area: float
    crowd: bool
    askable: bool | None
    phrases: tuple[str, ...]
    outlines: tuple[Array, ...]
    counts: str | Sequence[int]
    key: Key | None

    def window(self, size: tuple[int, int]) -> tuple[int, int, Array]:
        """Rasterise the object: x, y, bool (h, w), as ``Masks.from_windows`` takes.

        Raises BadTable.
        """
        counts = self.counts
        if self.outlines:
            codes = coco_mask.frPyObjects(
                [outline.ravel().tolist() for outline in self.outlines], *size
            )
            counts = coco_mask.merge(codes)["counts"].decode("ascii")
        try:
            return rle.window(counts, size)
        except ValueError as error:
            raise BadTable(
                f"{self.where}: segmentation is not a valid run-length code, {error}"
            ) from None


@dataclass(frozen=True, eq=False)
class Instances:
    """A table of instances. images: sorted by name. things: objects by image key."""

    images: tuple[ImageRow, ...]
    categories: Mapping[Key, Category]
    things: Mapping[Key, tuple[Thing, ...]]

    def masks(self, image: ImageRow) -> Masks:
        """Rasterise an image's objects, in the order of the table. Raises BadTable."""
        boxes, bitmaps, remaining = [], [], MAX_MASKS
        for thing in self.things[image.key]:
            mask = Masks.from_windows([thing.window(image.size)], image.size)
            boxes.append(mask.boxes[0])
            bitmaps.append(mask.bitmaps[0])
            remaining -= bitmaps[-1].nbytes
            if remaining < 0:
                raise BadTable(
                    f"{thing.where}: the masks of {image.name!r} exceed {MAX_MASKS:,} bytes; "
                    "remove some"
                )
        return Masks(np.reshape(np.array(boxes, np.int32), (-1, 4)), tuple(bitmaps), image.size)


def read(file: Path) -> Instances:
    """Read a file of instance annotations. Raises BadTable."""
    return instances(tables.read_json(file, "the COCO file"), str(file))


def instances(table: Any, label: str) -> Instances:
    """Validate parsed JSON as instance annotations. label: its file. Raises BadTable."""
    top = Fields(table, label)
    licences = {row.key("id"): row.text("name", "") for row in top.rows("licenses", optional=True)}
    categories: dict[Key, Category] = {}
    for row in top.rows("categories"):
        key = _new(row, categories)
        categories[key] = Category(row.text("name", least=1), row.texts("texts") or ())
    images: dict[Key, ImageRow] = {}
    for row in top.rows("images"):
        key = _new(row, images)
        images[key] = _image(row, key, licences)
    if not images:
        top.fail("images", "at least one image")
    things: dict[Key, list[Thing]] = {key: [] for key in images}
    for row in top.rows("annotations"):
        image = row.known("image_id", images, "images")
        row.known("category_id", categories, "categories")
        things[image].append(_thing(row, images[image].size))
    ordered = sorted(images.values(), key=lambda row: row.name)
    return Instances(tuple(ordered), categories, {key: tuple(rows) for key, rows in things.items()})


def _new(row: Fields, known: Mapping[Key, Any]) -> Key:
    key = row.key("id")
    if key in known:
        row.fail("id", "an id that no other row has")
    return key


def _image(row: Fields, key: Key, licences: Mapping[Key, str]) -> ImageRow:
    height, width = row.whole("height", least=1), row.whole("width", least=1)
    if height * width > MAX_PIXELS:
        row.fail("height", f"{MAX_PIXELS:,} pixels at most, not {height} x {width}")
    licence = licences.get(row.key("license"), "") if row.has("license") else ""
    name, absent = row.name("file_name"), row.texts("absent")
    return ImageRow(
        key,
        name,
        (height, width),
        absent,
        licence,
        row.text("flickr_url", ""),
        row.text("source", ""),
    )


def _thing(row: Fields, size: tuple[int, int]) -> Thing:
    outlines, counts = segmentation(row, size)
    box = row.numbers("bbox", 4)
    if min(box[2:]) < 0:
        row.fail("bbox", "a width and a height of 0 or more")
    area = row.number("area", least=0, default=box[2] * box[3])
    askable = row.flag("askable") if row.has("askable") else None
    key = row.row.get("id")
    return Thing(
        row.where,
        row.key("category_id"),
        box,
        area,
        row.flag("iscrowd"),
        askable,
        row.texts("phrases") or (),
        outlines,
        counts,
        key if isinstance(key, int | str) else None,
    )


def segmentation(
    row: Fields, size: tuple[int, int]
) -> tuple[tuple[Array, ...], str | Sequence[int]]:
    """Return a row's segmentation as polygons and "", or no polygons and RLE counts.

    size: (H, W) of the image. Raises BadTable.
    """
    form = row.row.get("segmentation")
    expected = "polygons [[x, y, x, y, x, y, ...], ...] or a run-length code"
    if isinstance(form, dict):
        code = Fields(form, f"{row.where}, segmentation")
        counts = form.get("counts")
        if form.get("size") != list(size):
            code.fail("size", f"the image's [height, width], {list(size)}")
        if not isinstance(counts, str | list):
            code.fail("counts", "text or a list of whole numbers")
        return (), counts
    if not isinstance(form, list):
        row.fail("segmentation", expected)
    outlines = tuple(_outline(row, outline, size) for outline in form)
    polygons = tuple(outline for outline in outlines if len(outline) >= 3)
    if not polygons:
        row.fail("segmentation", f"{expected}; none of these has three points")
    edges = (np.diff(polygon, axis=0, append=polygon[:1]) for polygon in polygons)
    if sum(np.abs(edge).max(axis=1).sum() for edge in edges) > MAX_OUTLINE:
        row.fail("segmentation", f"outlines of {MAX_OUTLINE:,} px in total at most")
    return polygons, ""


def _outline(row: Fields, outline: Any, size: tuple[int, int]) -> Array:
    """Return a valid polygon, (K, 2); it may extend past the image by the image's size at most."""
    if not isinstance(outline, list) or len(outline) % 2 or not all(map(_finite, outline)):
        row.fail("segmentation", "polygons of finite numbers, [x, y, x, y, x, y, ...]")
    points = np.array(outline, np.float64).reshape(-1, 2)
    side = np.array([size[1], size[0]])
    if ((points < -side) | (points > 2 * side)).any():
        row.fail("segmentation", f"polygons in pixels, near the image of {size[0]} x {size[1]}")
    return points


def _finite(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < 1e15  # False for NaN


class Fields:
    """Validated access to the fields of a JSON object.

    Methods raise BadTable, which names the object, the field, its value and what was expected.
    """

    def __init__(self, row: Any, where: object) -> None:
        if not isinstance(row, dict):
            raise BadTable(f"{where} is {_brief(row)}; expected a JSON object")
        self.row, self.where = row, where

    def has(self, name: str) -> bool:
        """Return whether a field is present and not null."""
        return self.row.get(name) is not None

    def fail(self, name: str, expected: str) -> NoReturn:
        """Raise BadTable for a field."""
        found = f"is {_brief(self.row[name])}" if name in self.row else "is missing"
        raise BadTable(f"{self.where}: {name} {found}; expected {expected}")

    def rows(self, name: str, *, optional: bool = False) -> Iterator[Fields]:
        """Yield the objects of a list."""
        if optional and not self.has(name):
            return
        if not isinstance(self.row.get(name), list):
            self.fail(name, "a list of objects")
        for number, row in enumerate(self.row[name]):
            identity = row.get("id") if isinstance(row, dict) else None
            yield Fields(row, Place(self.where, name, number, identity))

    def key(self, name: str) -> Key:
        """Return an id: a whole number or text."""
        value = self.row.get(name)
        if isinstance(value, bool) or not isinstance(value, int | str):
            self.fail(name, "a whole number or text")
        return value

    def known(self, name: str, table: Mapping[Key, Any], of: str) -> Key:
        """Return an id that is a key of ``table``. of: the table's name."""
        key = self.key(name)
        if key not in table:
            self.fail(name, f"an id that is in {of}")
        return key

    def text(self, name: str, default: str | None = None, *, least: int = 0) -> str:
        """Return a text of at least ``least`` characters."""
        value = self.row[name] if self.has(name) else default
        if not isinstance(value, str) or len(value.strip()) < least or lines.fault(value):
            self.fail(name, "text that is not empty" if least else "text")
        return value

    def texts(self, name: str) -> tuple[str, ...] | None:
        """Return a list of texts, None if absent."""
        if not self.has(name):
            return None
        value = self.row[name]
        if not isinstance(value, list) or not all(
            isinstance(text, str) and not lines.fault(text) for text in value
        ):
            self.fail(name, "a list of texts")
        return tuple(value)

    def name(self, name: str) -> str:
        """Return a file name, relative and inside the folder of the images."""
        value = self.text(name, least=1)
        escapes = ".." in PurePosixPath(value.replace("\\", "/")).parts
        if escapes or PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute():
            self.fail(name, "a relative name inside the folder of the images")
        return value

    def whole(self, name: str, *, least: int) -> int:
        """Return a whole number of at least ``least``."""
        value = self.row.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.fail(name, f"a whole number of {least} or more")
        return value

    def number(self, name: str, *, least: float, default: float) -> float:
        """Return a finite number of at least ``least``."""
        value = self.row[name] if self.has(name) else default
        if not _finite(value) or value < least:
            self.fail(name, f"a number of {least:g} or more")
        return float(value)

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """Return a list of ``count`` finite numbers."""
        value = self.row.get(name)
        if not isinstance(value, list) or len(value) != count or not all(map(_finite, value)):
            self.fail(name, f"a list of {count} finite numbers")
        return tuple(float(each) for each in value)

    def flag(self, name: str) -> bool:
        """Return a flag, False if absent."""
        value = self.row.get(name) or 0
        if value not in (0, 1):
            self.fail(name, "true, false, 0 or 1")
        return bool(value)


def _brief(value: Any) -> str:
    """Return an abbreviated JSON value without control characters."""
    return "null" if value is None else _SHORT.repr(value)
