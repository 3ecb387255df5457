"""Crop regions for an encoder: the one place that decides context, background and aspect.

Training crops here too, so that a checkpoint is served with the crops it was trained on.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ..errors import UnknownName
from ..types import Array, Image, Masks

FILLS = ("keep", "blur", "mean", "black", "white")
_THREADED = 128  # px: minimum crop side at which threads pay off
LARGEST = 8192  # px: maximum side of a window that is read at full resolution
COARSE = 4096  # px: side to which a larger window is reduced
_WIDEST = 64  # maximum context: a wider window shows next to nothing of its region
_BLUR_CELLS = 8  # cells per side of a blurred background: colour and layout, no texture


@dataclass(frozen=True)
class View:
    """Settings of one crop of a region.

    context: side of the window over the longer side of the region's box; 1.0 is tight. fill:
    treatment of pixels outside the mask. weight: share of this view's embedding in the blend.
    stretch: the window has the aspect of the box, context times its width and height, and is
    stretched to the square input of the encoder: without padding, a small encoder gets the region
    as large as possible.
    """

    context: float = 1.5
    fill: str = "blur"
    weight: float = 0.5
    stretch: bool = False

    def __post_init__(self) -> None:
        if self.fill not in FILLS:
            raise UnknownName(f"unknown fill {self.fill!r}; choose one of {', '.join(FILLS)}")
        if not (1 <= self.context <= _WIDEST and 0 < self.weight < math.inf):
            raise ValueError(
                f"want context in [1, {_WIDEST}] and weight > 0, got {self.context} and "
                f"{self.weight}"
            )


@dataclass(frozen=True)
class CropPolicy:
    """How regions are cropped for an encoder: views whose unit embeddings are blended by weight.

    square: pad the window to a square (never a centre crop that loses the ends); False passes the
    plain box at its own aspect, as ultralytics does. min_area: regions of this many pixels or fewer
    are never scored (0 scores all). flip: also encode each square crop mirrored left to right and
    average, at twice the cost: test-time augmentation of AlexNet (Krizhevsky et al. 2012), for
    small encoders. thorough: minimum proposer quality of a region for all views and flips; the many
    unlikely regions below it get only the first view.
    """

    views: tuple[View, ...] = (View(1.5, "blur", 0.5), View(1.0, "blur", 0.5))
    square: bool = True
    min_area: int = 0
    flip: bool = False
    thorough: float = 0.0

    def __post_init__(self) -> None:
        numbers = isinstance(self.min_area, int) and isinstance(self.thorough, int | float)
        if not (
            numbers
            and self.min_area >= 0
            and isinstance(self.square, bool)
            and isinstance(self.flip, bool)
        ):
            raise ValueError(
                f"want square and flip true or false, min_area >= 0 and a number for thorough, got "
                f"{str((self.square, self.flip, self.min_area, self.thorough))[:80]}"
            )
        if not self.views:
            raise ValueError("a crop policy needs at least one view")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CropPolicy:
        """Rebuild a policy from its ``dataclasses.asdict``."""
        return cls(**{**data, "views": tuple(View(**view) for view in data["views"])})


POLICIES: dict[str, CropPolicy] = {
    "default": CropPolicy(),
    "context": CropPolicy((View(1.5, "blur", 1.0),)),
    "keep": CropPolicy((View(1.5, "keep", 1.0),)),
    "tight": CropPolicy((View(1.0, "mean", 1.0),)),
    "ultralytics": CropPolicy((View(1.0, "black", 1.0),), square=False, min_area=100),
}


def cut(image: Image, masks: Masks, view: View, size: int) -> Array:
    """Cut the window of every mask, resized to a square: uint8 (N, size, size, 3) RGB.

    The window is centred on the box and may extend past the image, where edge pixels are
    replicated; then the fill is applied outside the mask. Shrinks by area, enlarges bicubically.
    """
    crops = np.empty((len(masks), size, size, 3), np.uint8)
    mean = image.pixels.mean(axis=(0, 1)) if view.fill == "mean" else None

    def cut_one(row: int) -> None:
        window = _window(masks.boxes[row], view)
        if max(window[2:]) > LARGEST:
            pixels, painted = _read_coarsely(image.pixels, masks, row, window)
        else:
            pixels, painted = _read(image.pixels, window, cv2.BORDER_REPLICATE), None
        pixels = _resize(pixels, size)
        if view.fill != "keep":
            painted = _paint(masks, row, window) if painted is None else painted
            inside = _resize(painted, size).astype(np.float32) / 255
            pixels = fill_outside(pixels, inside, view.fill, mean)
        crops[row] = pixels

    # in parallel, because a GPU embeds faster than one thread cuts
    threads = min(cv2.getNumThreads(), len(masks)) if size >= _THREADED else 1
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(cut_one, range(len(masks))))
    else:
        for row in range(len(masks)):
            cut_one(row)
    return crops


def fill_outside(pixels: Array, inside: Array, fill: str, mean: Array | None = None) -> Array:
    """Replace the pixels outside a mask: uint8 (S, S, 3) RGB.

    pixels: uint8 (S, S, 3). inside: float32 (S, S) in [0, 1], the mask's coverage of each pixel.
    mean: RGB (3,) for fill "mean"; default: the crop's own mean.
    """
    if fill == "keep":
        return pixels
    coverage = inside[..., None]
    blended: Array = np.rint(
        pixels * coverage + _background(pixels, fill, mean) * (1 - coverage)
    ).astype(np.uint8)
    return blended


def cut_boxes(image: Image, masks: Masks, fill: str) -> list[Array]:
    """Cut every mask's box at its own shape: N uint8 (h, w, 3) RGB.

    Pixels outside the mask are black, unless ``fill`` is "keep".
    """
    crops = []
    for (x1, y1, x2, y2), bitmap in zip(masks.boxes, masks.bitmaps, strict=True):
        pixels = image.pixels[y1:y2, x1:x2]
        crops.append(pixels if fill == "keep" else pixels * bitmap[..., None])
    return crops


def _window(box: Array, view: View) -> tuple[int, int, int, int]:
    """Return the window of a box: left, top, width, height in px; it may extend past the image."""
    x1, y1, x2, y2 = (int(v) for v in box)
    sides = (x2 - x1, y2 - y1) if view.stretch else (max(x2 - x1, y2 - y1),) * 2
    width, height = (max(2, round(side * view.context)) for side in sides)
    return (x1 + x2 - width) // 2, (y1 + y2 - height) // 2, width, height


def _read(frame: Array, window: tuple[int, int, int, int], border: int) -> Array:
    left, top, width, height = window
    rows, columns = frame.shape[:2]
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, columns), min(top + height, rows)
    inner = frame[y1:y2, x1:x2]
    if inner.shape[:2] == (height, width):
        return inner
    padded: Array = cv2.copyMakeBorder(
        inner, y1 - top, top + height - y2, x1 - left, left + width - x2, border
    )
    return padded


def _read_coarsely(
    frame: Array, masks: Masks, row: int, window: tuple[int, int, int, int]
) -> tuple[Array, Array]:
    """Read a window and its mask at reduced size; that of a thin region may take gigabytes."""
    left, top, wide, high = window
    x1, y1 = (int(v) for v in masks.boxes[row, :2])
    fold = -(-max(wide, high) // COARSE)
    columns, rows = -(-wide // fold), -(-high // fold)

    def shrink(part: Array, x: int, y: int, border: int) -> Array:
        height, width = (
            max(1, min(n // fold, most))
            for n, most in zip(part.shape, (rows, columns), strict=False)
        )
        x, y = min((x - left) // fold, columns - width), min((y - top) // fold, rows - height)
        small = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        padded: Array = cv2.copyMakeBorder(
            small, y, rows - y - height, x, columns - x - width, border
        )
        return padded

    inner_x, inner_y = max(left, 0), max(top, 0)
    inner = frame[inner_y : top + high, inner_x : left + wide]
    painted = shrink(masks.bitmaps[row] * np.uint8(255), x1, y1, cv2.BORDER_CONSTANT)
    return shrink(inner, inner_x, inner_y, cv2.BORDER_REPLICATE), painted


def _paint(masks: Masks, row: int, window: tuple[int, int, int, int]) -> Array:
    left, top, width, height = window
    x1, y1, x2, y2 = masks.boxes[row]
    frame = np.zeros((height, width), np.uint8)
    frame[y1 - top : y2 - top, x1 - left : x2 - left][masks.bitmaps[row]] = 255
    return frame


def _resize(pixels: Array, size: int) -> Array:
    shrinks = max(pixels.shape[:2]) > size
    resized: Array = cv2.resize(
        pixels, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    return resized


def _background(pixels: Array, fill: str, mean: Array | None) -> Array:
    if fill == "blur":
        small = cv2.resize(pixels, (_BLUR_CELLS, _BLUR_CELLS), interpolation=cv2.INTER_AREA)
        blurred: Array = cv2.resize(small, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return blurred.astype(np.float32)
    if fill == "mean":
        return (pixels.mean(axis=(0, 1)) if mean is None else mean).astype(np.float32)
    return np.full(3, 255.0 if fill == "white" else 0.0, np.float32)
