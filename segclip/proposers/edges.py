"""Fit a mask to the image's edges with a colour guided filter in the mask's window.

He, Sun and Tang, "Guided Image Filtering", 2013, equations 14 to 16,
https://doi.org/10.1109/TPAMI.2012.213; large windows are solved at a smaller size, as in He and
Sun, "Fast Guided Filter", 2015, https://arxiv.org/abs/1505.00996.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import cv2
import numpy as np

from ..types import Array, Image, Masks
from .logits import Sampler

# magnitude at which scaled logits are clipped, a probability of 1e-6: smaller products become
# denormal numbers, which take many times as long
_CLIP = 14.0


@dataclass(frozen=True)
class EdgeOptions:
    """Options of edge fitting.

    quality: minimum quality of a proposal whose edge is fitted; each costs some milliseconds.
    radius: of the filter, in pixels of the network's frame, or of the image if that is smaller.
    smoothness: variance of colours, in [0, 1], below which a difference is no edge. sharpness:
    factor of the logits before the sigmoid. grow: how far a mask may extend beyond its box, in px
    of the network's frame.
    """

    quality: float = 0.2
    radius: int = 12
    smoothness: float = 2e-4
    sharpness: float = 2.0
    grow: int = 2


@dataclass(frozen=True, eq=False)
class Frame:
    """An image with the sampler of its logits.

    step: image pixels along a pixel of the network's frame, at least 1.
    """

    sampler: Sampler
    image: Image
    step: int


@dataclass(frozen=True, eq=False)
class Patch:
    """Logits of the mask of a row: float32 (h, w), for the image's window with corner x, y."""

    row: int
    x: int
    y: int
    logits: Array


def patches(
    masks: Iterable[tuple[int, Array, Array]], frame: Frame, options: EdgeOptions
) -> Iterator[Patch]:
    """Sample the logits of masks in windows somewhat larger than their boxes.

    masks: row, grid of logits (h, w) and box xyxy in pixels of each.
    """
    height, width = frame.image.size
    for row, cells, box in masks:
        x1, y1, x2, y2 = box + np.array([-1.0, -1.0, 1.0, 1.0]) * options.grow * frame.step
        x1, y1 = max(int(np.floor(x1)), 0), max(int(np.floor(y1)), 0)
        x2, y2 = min(int(np.ceil(x2)), width), min(int(np.ceil(y2)), height)
        if x2 - x1 >= 2 and y2 - y1 >= 2:
            logits = np.concatenate(
                [band for _, band in frame.sampler.bands(cells, (x1, y1, x2, y2))]
            )
            yield Patch(row, x1, y1, logits)


def refine(
    masks: Masks, patches: Iterable[Patch], frame: Frame, options: EdgeOptions | None
) -> Masks:
    """Replace some of an image's masks by thresholding their patches.

    With ``options`` the new masks are also fitted to the image's edges.
    """
    boxes, bitmaps = masks.boxes.copy(), list(masks.bitmaps)
    for patch in patches:
        bitmap = patch.logits > 0
        if options:
            height, width = bitmap.shape
            pixels = frame.image.pixels[patch.y : patch.y + height, patch.x : patch.x + width]
            bitmap = fit(patch.logits, pixels, frame.step, options)
        cut = Masks.from_windows([(patch.x, patch.y, bitmap)], frame.image.size)
        if cut.areas[0]:
            boxes[patch.row], bitmaps[patch.row] = cut.boxes[0], cut.bitmaps[0]
    return Masks(boxes, tuple(bitmaps), frame.image.size)


def fit(logits: Array, pixels: Array, step: int, options: EdgeOptions) -> Array:
    """Fit a mask to the image's edges near those of the logits: bool (h, w).

    logits: float32 (h, w). pixels: uint8 (h, w, 3). step: image pixels along a pixel of the
    network's frame.
    """
    height, width = logits.shape
    small = (max(1, width // step), max(1, height // step))
    guide = [plane.astype(np.float32) / 255 for plane in cv2.split(pixels)]
    mask = 1 / (1 + np.exp((-options.sharpness * logits).clip(-_CLIP, _CLIP)))
    if step > 1:
        coarse = [
            cv2.resize(plane, small, interpolation=cv2.INTER_AREA) for plane in (*guide, mask)
        ]
        found = _coefficients(coarse[:3], coarse[3], options)
        *slope, base = (
            cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in found
        )
    else:
        *slope, base = _coefficients(guide, mask, options)
    fitted: Array = sum((a * b for a, b in zip(slope, guide, strict=True)), base) > 0.5
    return fitted


def _coefficients(guide: Sequence[Array], mask: Array, options: EdgeOptions) -> list[Array]:
    """Solve mask = slope . guide + base around each pixel, and average the solutions.

    Returns four planes float32 (h, w), the base last. Works plane by plane, so that each stays in
    the processor's cache.
    """
    sides = (2 * options.radius + 1, 2 * options.radius + 1)

    def mean(plane: Array) -> Array:
        averaged: Array = cv2.boxFilter(plane, -1, sides, borderType=cv2.BORDER_REFLECT)
        return averaged

    means, mask_mean = [mean(plane) for plane in guide], mean(mask)
    # covariances with the mask
    p, q, s = (mean(plane * mask) - m * mask_mean for plane, m in zip(guide, means, strict=True))

    def variance(i: int, j: int) -> Array:
        covariance: Array = mean(guide[i] * guide[j]) - means[i] * means[j]
        if i == j:
            covariance += options.smoothness
        return covariance

    rr, rg, rb, gg, gb, bb = (variance(i, j) for i, j in combinations_with_replacement(range(3), 2))
    # inverse of the symmetric covariance matrix, by its cofactors
    crr, crg, crb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    cgg, cgb, cbb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = np.maximum(rr * crr + rg * crg + rb * crb, 1e-12)
    rows = ((crr, crg, crb), (crg, cgg, cgb), (crb, cgb, cbb))
    slope = [(a * p + b * q + c * s) / determinant for a, b, c in rows]
    base = mask_mean - sum(a * m for a, m in zip(slope, means, strict=True))
    return [mean(plane) for plane in (*slope, base)]
