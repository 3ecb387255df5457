"""Read photographs that stand behind scenes, with the labels of what is on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from segclip import coco, images
from segclip.errors import BadTable
from segclip.types import Array

HELD_OUT_EVERY = 5  # every fifth photo, by name, is kept for validation
FREE_LICENCES = ("Attribution License", "No known copyright restrictions", "United States Government Work")


@dataclass(frozen=True, eq=False)
class Photo:
    """Hold a background photo. pixels: uint8 (H, W, 3) RGB. labels: int16 (H, W), 0 for nothing, k for its object k.

    credit: where it was published, and its licence.
    """

    pixels: Array
    labels: Array
    credit: str = ""


def load_photos(folder: Path | None, *, held_out: bool, free: bool = False) -> list[Photo]:
    """Read the photos of a COCO-format folder (images/ and instances.json).

    held_out: every fifth by name, else the rest. free: only those whose licence lets anyone pass on changed copies.
    """
    if folder is None:
        return []
    table = coco.read(folder / "instances.json")
    kept = [image for row, image in enumerate(table.images) if is_held_out(row) == held_out]
    kept = [image for image in kept if not free or image.licence in FREE_LICENCES]
    return [_photo(folder, image, largest_first(table.things[image.key])) for image in kept]


def is_held_out(row: int) -> bool:
    """Tell whether the photo at a place in the order of names is kept for validation."""
    return row % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def largest_first(things: Sequence[coco.Thing]) -> list[coco.Thing]:
    """Order a photo's things as its labels number them, from 1 on; groups outlined as one have none."""
    return sorted((thing for thing in things if not thing.crowd), key=lambda thing: -thing.area)


def _photo(folder: Path, image: coco.ImageRow, things: Sequence[coco.Thing]) -> Photo:
    labels = np.zeros(image.size, np.int16)
    for number, thing in enumerate(things, 1):
        outlines = [np.rint(outline).astype(np.int32) for outline in thing.outlines]
        if outlines:
            cv2.fillPoly(labels, outlines, number)
        else:
            x, y, bitmap = thing.window(image.size)
            labels[y : y + bitmap.shape[0], x : x + bitmap.shape[1]][bitmap] = number
    pixels = images.load(folder / "images" / image.name).pixels
    if pixels.shape[:2] != image.size:
        raise BadTable(
            f"{folder / 'images' / image.name} is {pixels.shape[:2]} high and wide, its table says {image.size}"
        )
    page = Path(image.url).name.partition("_")[0]
    # the photo's page, which names its author; the image's own address does not
    return Photo(pixels, labels, f"https://www.flickr.com/photo.gne?id={page} ({image.licence})")
