"""Fit a mask's edge to the picture: a guided filter with colour, in the mask's own window.

He, Sun and Tang, "Guided Image Filtering", 2013, equations 14 to 16, https://doi.org/10.1109/TPAMI.2012.213; large
windows are solved at a smaller size, as in He and Sun, "Fast Guided Filter", 2015, https://arxiv.org/abs/1505.00996.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from ..types import Array, Image, Masks
from .logits import Sampler


@dataclass(frozen=True)
class EdgeOptions:
    """Say how edges are fitted.

    quality: least quality of a proposal whose edge is fitted; each costs some milliseconds. radius: of the filter, in
    pixels of the network's frame, or of the image if that is smaller. smoothness: variance of colours, in [0, 1], below
    which a difference is no edge. sharpness: factor of the logits before they become probabilities. grow: px of the
    network's frame that a mask may leave its box by.
    """

    quality: float = 0.2
    radius: int = 12
    smoothness: float = 2e-4
    sharpness: float = 2.0
    grow: int = 2


@dataclass(frozen=True, eq=False)
class Frame:
    """Lay grids of logits over an image. step: image pixels along a pixel of the network's frame, at least 1."""

    sampler: Sampler
    image: Image
    step: int


def refine(masks: Masks, given: Iterable[tuple[int, Array, Array]], frame: Frame, options: EdgeOptions) -> Masks:
    """Fit the edges of some of an image's masks, each given by its row, logits (h, w), and box xyxy in pixels."""
    boxes, bitmaps = masks.boxes.copy(), list(masks.bitmaps)
    height, width = frame.image.size
    for row, cells, box in given:
        x1, y1, x2, y2 = box + np.array([-1.0, -1.0, 1.0, 1.0]) * options.grow * frame.step
        x1, y1 = max(int(np.floor(x1)), 0), max(int(np.floor(y1)), 0)
        x2, y2 = min(int(np.ceil(x2)), width), min(int(np.ceil(y2)), height)
        if x2 - x1 < 2 or y2 - y1 < 2:
            continue
        logits = np.concatenate([band for _, band in frame.sampler.bands(cells, (x1, y1, x2, y2))])
        bitmap = fit(logits, frame.image.pixels[y1:y2, x1:x2], frame.step, options)
        fitted = Masks.from_windows([(x1, y1, bitmap)], frame.image.size)
        if fitted.areas[0]:
            boxes[row], bitmaps[row] = fitted.boxes[0], fitted.bitmaps[0]
    return Masks(boxes, tuple(bitmaps), frame.image.size)


def fit(logits: Array, pixels: Array, step: int, options: EdgeOptions) -> Array:
    """Cut a mask where the picture has an edge near that of the logits: bool (h, w).

    logits: float32 (h, w). pixels: uint8 (h, w, 3). step: image pixels along a pixel of the network's frame.
    """
    height, width = logits.shape
    small = (max(1, width // step), max(1, height // step))
    guide = pixels.astype(np.float32) / 255
    share = 1 / (1 + np.exp(-options.sharpness * logits.clip(-30, 30)))
    if step > 1:
        coarse = [cv2.resize(part, small, interpolation=cv2.INTER_AREA) for part in (guide, share)]
        slope, base = _coefficients(coarse[0], coarse[1], options)
        slope, base = (cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR) for part in (slope, base))
    else:
        slope, base = _coefficients(guide, share, options)
    fitted: Array = (slope * guide).sum(axis=2) + base > 0.5
    return fitted


def _coefficients(guide: Array, share: Array, options: EdgeOptions) -> tuple[Array, Array]:
    """Solve share = slope . guide + base around each pixel, and average: float32 (h, w, 3), (h, w)."""
    sides = (2 * options.radius + 1, 2 * options.radius + 1)

    def mean(values: Array) -> Array:
        averaged: Array = cv2.boxFilter(values, -1, sides, borderType=cv2.BORDER_REFLECT)
        return averaged

    middle, height = mean(guide), mean(share)
    along = mean(guide * share[..., None]) - middle * height[..., None]  # covariance with the mask
    r, g, b = (guide[..., channel] for channel in range(3))
    products = mean(np.dstack([r * r, r * g, r * b, g * g, g * b, b * b]))
    x, y, z = (middle[..., channel] for channel in range(3))
    moments = products - np.dstack([x * x, x * y, x * z, y * y, y * z, z * z])
    rr, rg, rb, gg, gb, bb = (moments[..., entry] for entry in range(6))
    rr, gg, bb = rr + options.smoothness, gg + options.smoothness, bb + options.smoothness
    # the inverse of the symmetric covariance, by its cofactors
    crr, crg, crb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    cgg, cgb, cbb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    whole = rr * crr + rg * crg + rb * crb
    p, q, s = (along[..., channel] for channel in range(3))
    slope = np.dstack([crr * p + crg * q + crb * s, crg * p + cgg * q + cgb * s, crb * p + cgb * q + cbb * s])
    slope /= np.maximum(whole, 1e-12)[..., None]
    base = height - (slope * middle).sum(axis=2)
    return mean(slope), mean(base)
