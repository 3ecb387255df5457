"""Read COCO-format tables of outlined things: the one reader, which checks all of a table before
anything works on it.

Whatever is wrong is a BadTable that names the file, the row, the field, what it is and what is
wanted.
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
MAX_OUTLINE = 4_000_000  # px of one thing's outlines; pycocotools takes 100 bytes for each
MAX_MASKS = 4_000_000_000  # bytes of an image's masks, each inside its box


@dataclass(frozen=True)
class Category:
    """Hold a category: its name, and other texts that mean it."""

    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class ImageRow:
    """Hold what a table says of an image. name: relative, inside the folder of the images. size:
    (H, W).

    absent: names of things that are not in the image, None where the table does not say. licence:
    its name, or "". url, source: where it was published, and which collection it is of, or "".
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
    """Name a row of a table in messages; put into words only when one is needed."""

    table: object
    rows: str
    number: int
    id: object

    def __str__(self) -> str:
        own = "" if self.id is None else f" (id {_brief(self.id)})"
        return f"{self.table}, {self.rows}[{self.number}]{own}"


@dataclass(frozen=True, eq=False)
class Thing:
    """Hold one outlined thing. where: its place in the table. box: x, y, width, height.

    outlines: float64 (K, 2) polygons, or counts: a run-length code. askable: None where the table
    does not say.
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

    def window(self, size: tuple[int, int]) -> tuple[int, int, Array]:
        """Paint the thing: x, y and bool (h, w), a window of ``Masks.from_windows``. Raises
        BadTable.
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
            raise BadTable(f"{self.where}: segmentation is no run-length code, {error}") from None


@dataclass(frozen=True, eq=False)
class Instances:
    """Hold a table of outlined things. images: in the order of their names. things: by the key of
    their image.
    """

    images: tuple[ImageRow, ...]
    categories: Mapping[Key, Category]
    things: Mapping[Key, tuple[Thing, ...]]

    def masks(self, image: ImageRow) -> Masks:
        """Paint an image's things, in the order of the table. Raises BadTable."""
        boxes, bitmaps, room = [], [], MAX_MASKS
        for thing in self.things[image.key]:
            one = Masks.from_windows([thing.window(image.size)], image.size)
            boxes.append(one.boxes[0])
            bitmaps.append(one.bitmaps[0])
            room -= bitmaps[-1].nbytes
            if room < 0:
                raise BadTable(
                    f"{thing.where}: the masks of {image.name!r} take over {MAX_MASKS:,} bytes; "
                    "give fewer"
                )
        return Masks(np.reshape(np.array(boxes, np.int32), (-1, 4)), tuple(bitmaps), image.size)


def read(file: Path) -> Instances:
    """Read a table of outlined things. Raises BadTable."""
    return instances(tables.read_json(file, "the COCO file"), str(file))


def instances(table: Any, label: str) -> Instances:
    """Check a table of outlined things that was read from JSON; label: its file. Raises
    BadTable.
    """
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
    outlines, counts = _segmentation(row, size)
    box = row.numbers("bbox", 4)
    if min(box[2:]) < 0:
        row.fail("bbox", "a width and a height of 0 or more")
    area = row.number("area", least=0, default=box[2] * box[3])
    askable = row.flag("askable") if row.has("askable") else None
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
    )


def _segmentation(
    row: Fields, size: tuple[int, int]
) -> tuple[tuple[Array, ...], str | Sequence[int]]:
    """Check a segmentation: polygons, or a run-length code in the image's size."""
    form, want = (
        row.row.get("segmentation"),
        "polygons [[x, y, x, y, x, y, ...], ...] or a run-length code",
    )
    if isinstance(form, dict):
        code = Fields(form, f"{row.where}, segmentation")
        counts = form.get("counts")
        if form.get("size") != list(size):
            code.fail("size", f"the image's [height, width], {list(size)}")
        if not isinstance(counts, str | list):
            code.fail("counts", "text or a list of whole numbers")
        return (), counts
    if not isinstance(form, list):
        row.fail("segmentation", want)
    outlines = tuple(_outline(row, outline, size) for outline in form)
    drawn = tuple(outline for outline in outlines if len(outline) >= 3)
    if not drawn:
        row.fail("segmentation", f"{want}; none of these has three points")
    if (
        sum(
            np.abs(np.diff(outline, axis=0, append=outline[:1])).max(axis=1).sum()
            for outline in drawn
        )
        > MAX_OUTLINE
    ):
        row.fail("segmentation", f"outlines of {MAX_OUTLINE:,} px in all at most")
    return drawn, ""


def _outline(row: Fields, outline: Any, size: tuple[int, int]) -> Array:
    """Check one polygon, which may reach beyond the image but not farther than the image is large:
    (K, 2).
    """
    if (
        not isinstance(outline, list)
        or len(outline) % 2
        or not all(_finite(value) for value in outline)
    ):
        row.fail("segmentation", "polygons of finite numbers, [x, y, x, y, x, y, ...]")
    points = np.array(outline, np.float64).reshape(-1, 2)
    side = np.array([size[1], size[0]])
    if ((points < -side) | (points > 2 * side)).any():
        row.fail("segmentation", f"polygons in pixels, near the image of {size[0]} x {size[1]}")
    return points


def _finite(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
    )  # NaN is not


class Fields:
    """Read the fields of one JSON object; errors name its place, the field, what it is and what is
    wanted.
    """

    def __init__(self, row: Any, where: object) -> None:
        if not isinstance(row, dict):
            raise BadTable(f"{where} is {_brief(row)}; want a JSON object")
        self.row, self.where = row, where

    def has(self, name: str) -> bool:
        """Tell whether a field is there and not null."""
        return self.row.get(name) is not None

    def fail(self, name: str, want: str) -> NoReturn:
        """Raise BadTable for a field."""
        told = f"is {_brief(self.row[name])}" if name in self.row else "is missing"
        raise BadTable(f"{self.where}: {name} {told}; want {want}")

    def rows(self, name: str, *, optional: bool = False) -> Iterator[Fields]:
        """Go through a list of objects."""
        if optional and not self.has(name):
            return
        if not isinstance(self.row.get(name), list):
            self.fail(name, "a list of objects")
        for number, row in enumerate(self.row[name]):
            yield Fields(
                row,
                Place(self.where, name, number, row.get("id") if isinstance(row, dict) else None),
            )

    def key(self, name: str) -> Key:
        """Return an id: a whole number or text."""
        value = self.row.get(name)
        if isinstance(value, bool) or not isinstance(value, int | str):
            self.fail(name, "a whole number or text")
        return value

    def known(self, name: str, table: Mapping[Key, Any], of: str) -> Key:
        """Return an id that is one of a table's."""
        key = self.key(name)
        if key not in table:
            self.fail(name, f"an id that is in {of}")
        return key

    def text(self, name: str, default: str | None = None, *, least: int = 0) -> str:
        """Return a text of ``least`` characters or more."""
        value = self.row[name] if self.has(name) else default
        if not isinstance(value, str) or len(value.strip()) < least or lines.fault(value):
            self.fail(name, "text that is not empty" if least else "text")
        return value

    def texts(self, name: str) -> tuple[str, ...] | None:
        """Return a list of texts, None where there is none."""
        if not self.has(name):
            return None
        value = self.row[name]
        if not isinstance(value, list) or not all(
            isinstance(text, str) and not lines.fault(text) for text in value
        ):
            self.fail(name, "a list of texts")
        return tuple(value)

    def name(self, name: str) -> str:
        """Return the name of a file inside its folder."""
        value = self.text(name, least=1)
        leaves = ".." in PurePosixPath(value.replace("\\", "/")).parts
        if leaves or PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute():
            self.fail(name, "a relative name inside the folder of the images")
        return value

    def whole(self, name: str, *, least: int) -> int:
        """Return a whole number."""
        value = self.row.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.fail(name, f"a whole number of {least} or more")
        return value

    def number(self, name: str, *, least: float, default: float) -> float:
        """Return a finite number."""
        value = self.row[name] if self.has(name) else default
        if not _finite(value) or value < least:
            self.fail(name, f"a number of {least:g} or more")
        return float(value)

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """Return so many finite numbers."""
        value = self.row.get(name)
        if (
            not isinstance(value, list)
            or len(value) != count
            or not all(_finite(each) for each in value)
        ):
            self.fail(name, f"a list of {count} finite numbers")
        return tuple(float(each) for each in value)

    def flag(self, name: str) -> bool:
        """Return a flag, False where there is none."""
        value = self.row.get(name) or 0
        if value not in (0, 1):
            self.fail(name, "true, false, 0 or 1")
        return bool(value)


def _brief(value: Any) -> str:
    """Write a value of JSON in short, without control characters."""
    return "null" if value is None else _SHORT.repr(value)
