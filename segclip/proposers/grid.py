"""Segment everything with a promptable network: a grid of clicks, filtered.

The filters are those of Segment Anything's appendix B. Masks become boxes and bitmaps at once, so
only one batch of coarse logits is in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import cv2
import numpy as np
import torch

from ..errors import BadPrompt
from ..types import Array, Everything, Image, Masks, Proposals
from .network import Clicks, Features, Network
from .space import keep_within
from .suppress import suppress

_Crop: TypeAlias = tuple[int, int, int, int]  # box xyxy in pixels of the image

# px, as in segment-anything: a mask that ends this close to its crop's edge, but not the image's,
# is truncated
_EDGE = 20


@dataclass(frozen=True)
class GridOptions:
    """Density and thresholds of the grid; the defaults are those published for SAM.

    points_per_side: clicks along each side. points_per_batch: maximum of clicks decoded at a time.
    min_quality: minimum predicted IoU. min_stability: minimum IoU of the masks thresholded at plus
    and minus ``stability_offset``. nms: of two boxes with a higher IoU only the better is kept.
    crop_layers: how often the image is processed again in crops, layer i in 4 ** i crops; their
    overlap is ``crop_overlap`` of the shorter side, halved with every layer, and layer i has
    points_per_side / crop_downscale ** i clicks along each side. crop_nms: ``nms`` between crops,
    where the smaller crop's box is kept. min_area: holes and islands of fewer pixels are removed.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    min_quality: float = 0.88
    min_stability: float = 0.95
    stability_offset: float = 1.0
    nms: float = 0.7
    crop_layers: int = 0
    crop_overlap: float = 512 / 1500
    crop_downscale: int = 1
    crop_nms: float = 0.7
    min_area: int = 0

    def __post_init__(self) -> None:
        for name in ("points_per_side", "points_per_batch", "crop_downscale"):
            if getattr(self, name) < 1:
                raise BadPrompt(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("nms", "crop_nms", "crop_overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadPrompt(f"{name} must lie in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class _Window:
    """A mask's bitmap with corner x, y, as packed bits: suppression gets thousands of them."""

    x: int
    y: int
    bits: Array
    height: int
    width: int

    @classmethod
    def of(cls, x: int, y: int, bitmap: Array) -> _Window:
        """Pack the mask's pixels, at least one, without the empty margins of ``bitmap``."""
        ys, xs = np.flatnonzero(bitmap.any(axis=1)), np.flatnonzero(bitmap.any(axis=0))
        tight = bitmap[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        return cls(x + int(xs[0]), y + int(ys[0]), np.packbits(tight), *tight.shape)

    @property
    def bitmap(self) -> Array:
        pixels = np.unpackbits(self.bits, count=self.height * self.width)
        return pixels.astype(bool).reshape(self.height, self.width)


@dataclass(frozen=True, eq=False)
class _Found:
    """N masks: windows in the image, quality (N,)."""

    windows: list[_Window]
    quality: Array

    @cached_property
    def boxes(self) -> Array:
        """Return the boxes xyxy, float64 (N, 4), with inclusive ends, as in segment-anything."""
        boxes = [(w.x, w.y, w.x + w.width - 1, w.y + w.height - 1) for w in self.windows]
        return np.array(boxes, np.float64).reshape(-1, 4)

    def __getitem__(self, rows: Array) -> _Found:
        return _Found([self.windows[row] for row in rows], self.quality[rows])

    @classmethod
    def join(cls, parts: list[_Found]) -> _Found:
        windows = [window for part in parts for window in part.windows]
        quality = np.concatenate([np.zeros(0, np.float32), *(part.quality for part in parts)])
        return cls(windows, quality)


def propose_everything(
    network: Network, features: Features, prompt: Everything, options: GridOptions
) -> Proposals:
    """Return the masks found by a grid of clicks, best first.

    With ``prompt.inside`` the grid covers those boxes only.
    """
    size = features.image.size
    crops = list(crop_boxes(size, options.crop_layers, options.crop_overlap))
    parts = []
    for layer, crop in crops:
        encoded = features if layer == 0 else network.encode(_cut(features.image, crop))
        found = _of_crop(network, encoded, _clicks(prompt, crop, options, layer), crop, options)
        found = found[np.flatnonzero(~_truncated(found.boxes, crop, size))]
        parts.append(found[suppress(found.boxes, found.quality, options.nms)])
    found = _Found.join(parts)
    if len(crops) > 1:
        areas = [(x2 - x1) * (y2 - y1) for _, (x1, y1, x2, y2) in crops]
        smallness = np.repeat([1 / area for area in areas], [len(part.windows) for part in parts])
        found = found[suppress(found.boxes, smallness, options.crop_nms)]
    if options.min_area:
        found = _cleaned(found, options)
    found = found[np.argsort(-found.quality, kind="stable")]
    windows = [(window.x, window.y, window.bitmap) for window in found.windows]
    return keep_within(Proposals(Masks.from_windows(windows, size), found.quality), prompt)


def crop_boxes(size: tuple[int, int], layers: int, overlap: float) -> Iterator[tuple[int, _Crop]]:
    """Yield the layer and the box xyxy of each crop, by columns.

    First the image itself, then 2 x 2 crops, then 4 x 4.
    """
    height, width = size
    yield 0, (0, 0, width, height)
    for layer in range(1, layers + 1):
        count = 2**layer
        common = int(overlap * min(size) * 2 / count)
        w, h = (math.ceil((common * (count - 1) + side) / count) for side in (width, height))
        for x in range(0, count * (w - common), w - common):
            for y in range(0, count * (h - common), h - common):
                yield layer, (x, y, min(x + w, width), min(y + h, height))


def point_grid(count: int) -> Array:
    """Spread count x count points over the unit square, row by row: float64 (count ** 2, 2)."""
    centres = (np.arange(count) + 0.5) / count
    return np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)


def _clicks(prompt: Everything, crop: _Crop, options: GridOptions, layer: int) -> Array:
    """Place the grid over a crop, or the part of it inside the prompt's boxes.

    Returns float64 (K, 2) in the crop's frame.
    """
    x1, y1, x2, y2 = crop
    left, top, right, bottom = float(x1), float(y1), float(x2), float(y2)
    if prompt.inside is not None:
        left, top = np.maximum(prompt.inside[:, :2].min(axis=0), (x1, y1)).tolist()
        right, bottom = np.minimum(prompt.inside[:, 2:].max(axis=0), (x2, y2)).tolist()
        if left >= right or top >= bottom:
            return np.zeros((0, 2))
    grid = point_grid(max(int(options.points_per_side / options.crop_downscale**layer), 1))
    return grid * (right - left, bottom - top) + (left - x1, top - y1)


def _of_crop(
    network: Network, features: Features, clicks: Array, crop: _Crop, options: GridOptions
) -> _Found:
    parts = []
    batch = network.batch_size(options.points_per_batch)
    for start in range(0, len(clicks), batch):
        chunk = clicks[start : start + batch]
        points = network.to_frame(chunk, features.image.size)[:, None]
        labels = torch.ones(points.shape[:2], dtype=torch.int32, device=network.device)
        logits, quality = network.predict(features.maps, Clicks(points, labels), multimask=True)
        flat = quality.flatten().float().cpu().numpy()
        # 0 keeps all: predicted IoU may be negative
        least = options.min_quality if options.min_quality > 0 else -np.inf
        good = np.flatnonzero(flat > least)
        cells = logits.flatten(0, 1)[torch.from_numpy(good)].float().cpu().numpy()
        parts.append(_stable(features, cells, flat[good], crop, options))
    return _Found.join(parts)


def _stable(
    features: Features, cells: Array, quality: Array, crop: _Crop, options: GridOptions
) -> _Found:
    """Threshold logits (N, h, w) at the image's resolution, and keep the stable masks."""
    windows, kept = [], []
    for row, grid in enumerate(cells):
        box = features.sampler.reach(grid > -options.stability_offset)
        bitmap = np.empty((box[3] - box[1], box[2] - box[0]), bool)
        above = near = 0
        for start, band in features.sampler.bands(grid, box):
            np.greater(band, 0, out=bitmap[start - box[1] : start - box[1] + len(band)])
            above += int(np.count_nonzero(band > options.stability_offset))
            near += int(np.count_nonzero(band > -options.stability_offset))
        if options.min_stability > 0 and (not near or above / near < options.min_stability):
            continue
        if bitmap.any():
            windows.append(_Window.of(box[0] + crop[0], box[1] + crop[1], bitmap))
            kept.append(row)
    return _Found(windows, quality[kept])


def _truncated(boxes: Array, crop: _Crop, size: tuple[int, int]) -> Array:
    """Mark the boxes that end at the crop's edge but not at the image's: bool (N,)."""
    whole = (0, 0, size[1], size[0])
    at_crop, at_image = (np.abs(boxes - np.array(edge)) <= _EDGE for edge in (crop, whole))
    truncated: Array = (at_crop & ~at_image).any(axis=1)
    return truncated


def _cut(image: Image, crop: _Crop) -> Image:
    x1, y1, x2, y2 = crop
    return Image(np.ascontiguousarray(image.pixels[y1:y2, x1:x2]), image.source)


def _cleaned(found: _Found, options: GridOptions) -> _Found:
    """Fill small holes and drop small islands, then suppress duplicates.

    Of masks that have become alike, one that did not change is kept.
    """
    windows, unchanged = [], []
    for window in found.windows:
        bitmap = window.bitmap
        clean = _without_islands(_without_holes(bitmap, options.min_area), options.min_area)
        windows.append(_Window.of(window.x, window.y, clean))
        unchanged.append(np.array_equal(clean, bitmap))
    cleaned = _Found(windows, found.quality)
    nms = max(options.nms, options.crop_nms)
    return cleaned[suppress(cleaned.boxes, np.array(unchanged, np.float64), nms)]


def _without_holes(bitmap: Array, least: int) -> Array:
    """Fill the mask's holes of fewer than ``least`` pixels."""
    # padded so that all of the outside is connected and not taken for a hole
    padded = np.pad(~bitmap, 1, constant_values=True).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(padded, connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] < least
    small[[0, labels[0, 0]]] = False  # 0 is the mask itself, labels[0, 0] the outside
    filled: Array = bitmap | small[labels][1:-1, 1:-1]
    return filled


def _without_islands(bitmap: Array, least: int) -> Array:
    """Drop pieces of fewer than ``least`` pixels, but never the largest."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(bitmap.astype(np.uint8), connectivity=8)
    if len(stats) <= 1:
        return bitmap
    large = stats[:, cv2.CC_STAT_AREA] >= least
    large[1 + stats[1:, cv2.CC_STAT_AREA].argmax()] = True
    large[0] = False
    pieces: Array = large[labels]
    return pieces
