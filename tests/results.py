"""Results to export: ragged masks, outlines of every kind, and texts that files must hold."""

from __future__ import annotations

import base64
import io
from typing import Any

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from pycocotools import mask as coco_mask

from segclip.types import Array, Image, Masks, Proposals, Regions, Result

SIZE = (37, 53)


def blobs(count: int, seed: int = 0) -> Array:
    """Draw ragged masks with holes and islands: bool (count, 37, 53)."""
    rng = np.random.default_rng(seed)
    dense = np.zeros((count, *SIZE), bool)
    for mask in dense:
        x1, y1 = int(rng.integers(0, 40)), int(rng.integers(0, 25))
        mask[y1 : y1 + 12, x1 : x1 + 13] = rng.random((12, min(13, 53 - x1))) > 0.4
    return dense


def make(dense: Array, texts: tuple[str, ...], queries: tuple[str, ...] | None = None) -> Result:
    rng = np.random.default_rng(1)
    count = len(dense)
    image = Image(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8), "photos/desk.jpg")
    quality = np.linspace(0.8, 0.4, count)
    regions = Regions(
        image, Proposals(Masks.from_dense(dense, SIZE), quality), np.zeros((count, 2), np.float32)
    )
    scores = np.linspace(0.3, 0.2, count).astype(np.float32)
    return Result(regions, texts, scores, scores * 3, queries or tuple(dict.fromkeys(texts)), 0.5)


def decode(rle: dict[str, object]) -> Array:
    return coco_mask.decode(rle).astype(bool)


CANVAS = (120, 160)


def ring_of(shape: tuple[int, int], outer: int, inner: int) -> Array:
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot(xs - 60, ys - 50)
    return (distance < outer) & (distance >= inner)


def scattered() -> Array:
    noise = cv2.GaussianBlur(np.random.default_rng(3).normal(size=CANVAS), (0, 0), 7)
    return np.asarray(noise > 0.03)


def result_of(*masks: Array) -> Result:
    image = Image(
        np.random.default_rng(0).integers(0, 255, (*CANVAS, 3), dtype=np.uint8), "a b.jpg"
    )
    count = len(masks)
    regions = Regions(
        image,
        Proposals(Masks.from_dense(np.array(masks), CANVAS), np.full(count, 0.9)),
        np.zeros((count, 1), np.float32),
    )
    texts = tuple(f'<mug> & "{row}" 🦁' for row in range(count))
    scores = np.linspace(0.9, 0.5, count).astype(np.float32)
    return Result(regions, texts, scores, scores, texts, 0.5)


MASKS = {
    "a disc": ring_of(CANVAS, 30, 0),
    "a ring with a hole": ring_of(CANVAS, 40, 20),
    "scattered parts and holes": scattered(),
    "a strip one pixel wide": ring_of(CANVAS, 200, 0) & (np.arange(120) == 7)[:, None],
}
each_mask = pytest.mark.parametrize("name", MASKS)


def even_odd(rings: list[list[list[int]]]) -> Array:
    inside = np.zeros(CANVAS, bool)
    ys, xs = np.mgrid[: CANVAS[0], : CANVAS[1]] + 0.5
    for ring in rings:
        for (ax, ay), (bx, by) in zip(ring, ring[1:] + ring[:1], strict=True):
            if ax == bx:
                inside ^= (xs < ax) & (ys > min(ay, by)) & (ys < max(ay, by))
    return inside


THIN = {
    "one pixel": [(5, 5)],
    "two pixels": [(5, 5), (5, 6)],
    "three round a corner": [(5, 5), (5, 6), (6, 5)],
    "a wire": [(10, x) for x in range(20, 120)],
    "an upright wire": [(y, 7) for y in range(120)],
    "a diagonal": [(y, y) for y in range(30)],
    "a staircase": [(y, y + step) for y in range(30) for step in (0, 1)],
    "the corners of the image": [(0, 0), (0, 159), (119, 0), (119, 159)],
}
ODD = "a\0b\x08\x1b[31m\x7f\x85\ud800\ufffe\uffff ]]> <&>\"' 🦁"


def read_labelme(record: dict[str, Any]) -> Array:
    """Read like labelme.utils.shape_to_mask.

    Polygons are drawn by Pillow with their outline, masks pasted at their first point.
    """
    read = np.zeros(CANVAS, bool)
    for shape in record["shapes"]:
        if shape["shape_type"] == "mask":
            (x1, y1), (x2, y2) = shape["points"]
            part = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(shape["mask"])))).astype(
                bool
            )
            read[y1 : y2 + 1, x1 : x2 + 1] |= part
        else:
            canvas = PIL.Image.new("L", CANVAS[::-1], 0)
            PIL.ImageDraw.Draw(canvas).polygon(
                [tuple(p) for p in shape["points"]], outline=1, fill=1
            )
            read |= np.asarray(canvas).astype(bool)
    return read
