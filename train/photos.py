"""Read photographs that stand behind scenes, with the labels of what is on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segclip import images
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
    table = json.loads((folder / "instances.json").read_text())
    licences = {row["id"]: row["name"] for row in table["licenses"]}
    rows = sorted(table["images"], key=lambda row: row["file_name"])
    kept = [image for row, image in enumerate(rows) if (row % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out]
    kept = [image for image in kept if not free or licences[image["license"]] in FREE_LICENCES]
    return [_photo(folder, image, table["annotations"], licences[image["license"]]) for image in kept]


def _photo(folder: Path, image: dict[str, Any], annotations: Sequence[dict[str, Any]], licence: str) -> Photo:
    labels = np.zeros((image["height"], image["width"]), np.int16)
    things = [thing for thing in annotations if thing["image_id"] == image["id"] and not thing["iscrowd"]]
    for number, thing in enumerate(sorted(things, key=lambda thing: -thing["area"]), 1):
        outlines = [np.rint(np.reshape(outline, (-1, 2))).astype(np.int32) for outline in thing["segmentation"]]
        cv2.fillPoly(labels, outlines, number)
    pixels = images.load(folder / "images" / image["file_name"]).pixels
    page = Path(image["flickr_url"]).name.partition("_")[0]
    # the photo's page, which names its author; the picture's own address does not
    return Photo(pixels, labels, f"https://www.flickr.com/photo.gne?id={page} ({licence})")
