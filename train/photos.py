"""Read photographs that stand behind scenes, with the labels of what is on them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from segclip import images
from segclip.types import Array

HELD_OUT_EVERY = 5  # every fifth photo, by name, is kept for validation
FREE_LICENCES = ("Attribution License", "No known copyright restrictions", "United States Government Work")


PERSON_ONLY = "clothes"  # a source of photos whose things are garments: the person who wears them is one thing


@dataclass(frozen=True, eq=False)
class Photo:
    """Hold a background photo. pixels: uint8 (H, W, 3) RGB. labels: int16 (H, W), 0 for nothing, k for its object k.

    credit: where it was published, and its licence. names: of object 1, 2 and so on. source: its collection.
    """

    pixels: Array
    labels: Array
    credit: str = ""
    names: tuple[str, ...] = ()
    source: str = ""


def load_photos(
    folder: Path | None, *, held_out: bool, free: bool = False, most: Mapping[str, int] | None = None
) -> list[Photo]:
    """Read the photos of a COCO-format folder (images/ and instances.json).

    held_out: every fifth by name, else the rest. free: only those whose licence lets anyone pass on changed copies.
    most: how many of a source are taken, evenly spread; all where it isn't named.
    """
    if folder is None:
        return []
    table = json.loads((folder / "instances.json").read_text("utf-8"))
    licences = {row["id"]: row["name"] for row in table.get("licenses", ())}
    names = {row["id"]: row["name"] for row in table["categories"]}
    things: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for thing in table["annotations"]:
        if not thing["iscrowd"]:
            things[thing["image_id"]].append(thing | {"name": names[thing["category_id"]]})
    rows = sorted(table["images"], key=lambda row: row["file_name"])
    kept = [image for row, image in enumerate(rows) if (row % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out]
    kept = [image for image in kept if not free or licences.get(image.get("license")) in FREE_LICENCES]
    for source, count in (most or {}).items():
        of_it = [image for image in kept if image.get("source") == source]
        spread = {image["id"] for image in of_it[:: max(1, -(-len(of_it) // max(count, 1)))][:count]}
        kept = [image for image in kept if image.get("source") != source or image["id"] in spread]
    return [_photo(folder, image, things[image["id"]], licences.get(image.get("license"), "")) for image in kept]


def _photo(folder: Path, image: dict[str, Any], things: Sequence[dict[str, Any]], licence: str) -> Photo:
    labels = np.zeros((image["height"], image["width"]), np.int16)
    source = image.get("source", "")
    if source == PERSON_ONLY:
        things = [thing for thing in things if thing["name"] == "person"]
    things = sorted(things, key=lambda thing: -thing["area"])
    for number, thing in enumerate(things, 1):
        _paint(labels, thing["segmentation"], number)
    pixels = images.load(folder / "images" / image["file_name"]).pixels
    # the photo's page, which names its author; the image's own address does not
    page = Path(image.get("flickr_url", "")).name.partition("_")[0]
    credit = f"https://www.flickr.com/photo.gne?id={page} ({licence})" if page else source
    return Photo(pixels, labels, credit, tuple(thing["name"] for thing in things), source)


def _paint(labels: Array, segmentation: Any, number: int) -> None:
    """Paint a thing's number where COCO's polygons or run-length code say it is."""
    if isinstance(segmentation, list):
        cv2.fillPoly(
            labels, [np.rint(np.reshape(outline, (-1, 2))).astype(np.int32) for outline in segmentation], number
        )
        return
    size = labels.shape
    code = segmentation if isinstance(segmentation["counts"], str) else coco_mask.frPyObjects(segmentation, *size)
    labels[coco_mask.decode(code).astype(bool)] = number
