"""Read the photographs behind scenes, with the labels of their objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from segclip import images
from segclip.errors import BadTable
from segclip.files import coco
from segclip.types import Array

HELD_OUT_EVERY = 5  # every fifth photo, by name, is kept for validation
FREE_LICENCES = (
    "Attribution License",
    "No known copyright restrictions",
    "United States Government Work",
)
# a source with labelled garments; the person wearing them is one object
PERSON_ONLY = "clothes"


@dataclass(frozen=True, eq=False)
class Photo:
    """A background photo.

    pixels: uint8 (H, W, 3) RGB. labels: int16 (H, W), 0 for nothing, k for its object k. credit:
    where it was published, and its licence. names: of object 1, 2 and so on. source: its
    collection.
    """

    pixels: Array
    labels: Array
    credit: str = ""
    names: tuple[str, ...] = ()
    source: str = ""


def load_photos(
    folder: Path | None,
    *,
    held_out: bool,
    free: bool = False,
    most: Mapping[str, int] | None = None,
    garments: bool = False,
) -> list[Photo]:
    """Read the photos of a COCO-format folder (images/ and instances.json).

    held_out: every fifth by name, else the rest. free: only those whose licence allows modification
    and redistribution. most: maximum number per source, evenly spaced; all of other sources.
    garments: where people's clothes are outlined, these are the objects, not the wearer. Raises
    BadTable and BadImage.
    """
    if folder is None:
        return []
    table = coco.read(folder / "instances.json")
    kept = [image for row, image in enumerate(table.images) if is_held_out(row) == held_out]
    kept = [image for image in kept if not free or image.licence in FREE_LICENCES]
    for source, count in (most or {}).items():
        of_it = [image for image in kept if image.source == source]
        spread = {image.key for image in of_it[:: max(1, -(-len(of_it) // max(count, 1)))][:count]}
        kept = [image for image in kept if image.source != source or image.key in spread]
    return [_photo(folder, table, image, garments=garments) for image in kept]


def is_held_out(row: int) -> bool:
    """Return whether the photo at a row, in the order of names, is kept for validation."""
    return row % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def largest_first(things: Sequence[coco.Thing]) -> list[coco.Thing]:
    """Order a photo's objects as its labels number them, from 1; crowds are left out."""
    return sorted((thing for thing in things if not thing.crowd), key=lambda thing: -thing.area)


def _photo(folder: Path, table: coco.Instances, image: coco.ImageRow, *, garments: bool) -> Photo:
    things, labels = table.things[image.key], np.zeros(image.size, np.int16)
    names = {key: category.name for key, category in table.categories.items()}
    if image.source == PERSON_ONLY and not garments:
        things = tuple(thing for thing in things if names[thing.category] == "person")
    ordered = largest_first(things)
    for number, thing in enumerate(ordered, 1):
        _paint(labels, image.size, thing, number)
    file = folder / "images" / image.name
    pixels = images.load(file).pixels
    if pixels.shape[:2] != image.size:
        raise BadTable(
            f"{file} is {pixels.shape[:2]} (height, width), but its table has {image.size}"
        )
    # the photo's page, which credits its author, unlike the image's URL
    page = Path(image.url).name.partition("_")[0]
    credit = (
        f"https://www.flickr.com/photo.gne?id={page} ({image.licence})" if page else image.source
    )
    return Photo(
        pixels, labels, credit, tuple(names[thing.category] for thing in ordered), image.source
    )


def _paint(labels: Array, size: tuple[int, int], thing: coco.Thing, number: int) -> None:
    """Fill an object's polygons or run-length mask with its number."""
    if thing.outlines:
        cv2.fillPoly(
            labels, [np.rint(outline).astype(np.int32) for outline in thing.outlines], number
        )
        return
    x, y, bitmap = thing.window(size)
    labels[y : y + bitmap.shape[0], x : x + bitmap.shape[1]][bitmap] = number
