"""Turn coarse mask logits into masks at the image's resolution, each in its own window.

Bilinear sampling is linear and separable: full logits are rows @ cells @ columns^T, each axis a
matrix with a few weights per pixel, and a window needs only its own rows and columns of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch.nn.functional import interpolate

from ..types import Array, Masks

_STRIDE = 4  # input pixels along a prototype cell, in every YOLO segmentation head
_BAND = 48  # image rows sampled at once: few enough to stay in cache, enough for a matrix product
_GROUP = 16  # masks whose logits are computed at once

Step: TypeAlias = "int | slice"  # resize to this many samples, or keep these


@dataclass(frozen=True, eq=False)
class Axis:
    """Sampling of one axis of the image from a grid's cells.

    weights: float32 (pixels, cells). first, last: (pixels,), weights are nonzero in [first, last).
    """

    weights: Array
    first: Array
    last: Array

    @classmethod
    def through(cls, cells: int, steps: Sequence[Step]) -> Axis:
        """Return the weights of a chain of bilinear resizings and crops.

        The chain is linear: applied to the identity it yields its matrix.
        """
        grid = torch.eye(cells)[None]  # (1, cells, samples)
        for step in steps:
            grid = (
                grid[..., step]
                if isinstance(step, slice)
                else interpolate(grid, size=step, mode="linear")
            )
        return cls.of(grid[0].T.contiguous().numpy())

    @classmethod
    def spanning(cls, cells: int, span: float, pixels: int) -> Axis:
        """Spread ``pixels`` over the first ``span`` cells, which need not be a whole number."""
        positions = ((np.arange(pixels) + 0.5) * span / pixels - 0.5).clip(0, cells - 1)
        low = np.minimum(positions.astype(np.int64), cells - 2)
        weights = np.zeros((pixels, cells), np.float32)
        rows = np.arange(pixels)
        weights[rows, low], weights[rows, low + 1] = 1 - (positions - low), positions - low
        return cls.of(weights)

    @classmethod
    def of(cls, weights: Array) -> Axis:
        """Build an axis from its weights (pixels, cells)."""
        used = weights > 0
        return cls(weights, used.argmax(axis=1), weights.shape[1] - used[:, ::-1].argmax(axis=1))

    def at(self, positions: Array) -> Array:
        """Interpolate the weights (P, cells) at positions along the axis.

        Positions are in pixels: 0.5 is the centre of the first one.
        """
        positions = (positions - 0.5).clip(0, len(self.weights) - 1)
        low = positions.astype(np.int64)
        high = np.minimum(low + 1, len(self.weights) - 1)
        fraction = (positions - low).astype(np.float32)[:, None]
        interpolated: Array = self.weights[low] * (1 - fraction) + self.weights[high] * fraction
        return interpolated


@dataclass(frozen=True, eq=False)
class Sampler:
    """Sample a grid of logits (h, w) at the pixels of an image."""

    rows: Axis
    columns: Axis

    def mask(self, cells: Array, box: Array | tuple[int, int, int, int]) -> Array:
        """Return where the logits are positive inside a box xyxy: bool (y2 - y1, x2 - x1)."""
        x1, y1, x2, y2 = box
        bitmap = np.empty((max(y2 - y1, 0), max(x2 - x1, 0)), bool)
        for start, band in self.bands(cells, box):
            np.greater(band, 0, out=bitmap[start - y1 : start - y1 + len(band)])
        return bitmap

    def bands(
        self, cells: Array, box: Array | tuple[int, int, int, int]
    ) -> Iterator[tuple[int, Array]]:
        """Yield the logits inside a box xyxy from the top down, a few rows at a time.

        Each item is the first row and float32 (rows, x2 - x1).
        """
        x1, y1, x2, y2 = box
        if x1 >= x2 or y1 >= y2:
            return
        rows, columns = self.rows, self.columns
        left, right, top = columns.first[x1], columns.last[x2 - 1], rows.first[y1]
        lines = _product(
            cells[top : rows.last[y2 - 1], left:right], columns.weights[x1:x2, left:right].T
        )
        for start in range(y1, y2, _BAND):
            end = min(start + _BAND, y2)
            first, last = rows.first[start], rows.last[end - 1]
            yield (
                start,
                _product(rows.weights[start:end, first:last], lines[first - top : last - top]),
            )

    def at(self, cells: Array, ys: Array, xs: Array) -> Array:
        """Return the logits at positions y and x of the image, in pixels.

        The shape is float32 (len(ys), len(xs)).
        """
        return _product(_product(self.rows.at(ys), cells), self.columns.at(xs).T)

    def reach(self, cells: Array) -> tuple[int, int, int, int]:
        """Return the box xyxy of all pixels that a true cell of bool (h, w) contributes to."""
        x1, x2 = _reached(self.columns, np.flatnonzero(cells.any(axis=0)))
        y1, y2 = _reached(self.rows, np.flatnonzero(cells.any(axis=1)))
        return x1, y1, x2, y2


def _product(a: Array, b: Array) -> Array:
    """Multiply matrices with torch's threads.

    NumPy's threads spin after a product and take the cores from the network's next run.
    """
    product: Array = (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()
    return product


def _reached(axis: Axis, cells: Array) -> tuple[int, int]:
    if not len(cells):
        return 0, 0
    pixels = np.flatnonzero((axis.first <= cells[-1]) & (axis.last > cells[0]))
    return (int(pixels[0]), int(pixels[-1]) + 1) if len(pixels) else (0, 0)


def assemble(
    prototypes: torch.Tensor, coefficients: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]
) -> Masks:
    """Return the N masks that ultralytics calls retina masks, row for row.

    prototypes: float32 (M, h, w). coefficients: float32 (N, M). boxes: float32 (N, 4) xyxy in
    pixels of the image of ``size`` (H, W). All on the CPU.
    """
    height, width = size
    corners = boxes.ceil().int().numpy().clip(0, (width, height, width, height))
    sampler = prototype_sampler((prototypes.shape[1], prototypes.shape[2]), size)
    # trimmed one at a time, so that at most one untrimmed mask is in memory
    masks = [
        Masks.from_windows([(box[0], box[1], sampler.mask(cells, box))], size)
        for cells, box in zip(_logits(prototypes, coefficients), corners, strict=True)
    ]
    tight = np.concatenate([mask.boxes for mask in masks]) if masks else corners
    return Masks(tight, tuple(mask.bitmaps[0] for mask in masks), size)


def prototype_gain(cells: tuple[int, int], size: tuple[int, int]) -> float:
    """Return the scale from an image of ``size`` (H, W) to YOLO's frame with grid (h, w)."""
    return min(_STRIDE * cell / full for cell, full in zip(cells, size, strict=True))


def prototype_sampler(cells: tuple[int, int], size: tuple[int, int]) -> Sampler:
    """Return the sampler from YOLO's prototype grid (h, w) to an image of ``size`` (H, W).

    It removes the letterbox padding.
    """
    gain = prototype_gain(cells, size)
    padding = [
        _STRIDE * cell - max(round(full * gain), 1) for cell, full in zip(cells, size, strict=True)
    ]
    # ultralytics first doubles or quadruples the grid where the padding would end inside a cell
    factor = next(
        (factor for factor in (1, 2) if not any(pad % (8 // factor) for pad in padding)), 4
    )
    gain = min(factor * cell / full for cell, full in zip(cells, size, strict=True))
    rows, columns = (
        _prototype_axis(cell, full, factor, gain) for cell, full in zip(cells, size, strict=True)
    )
    return Sampler(rows, columns)


def _prototype_axis(cells: int, pixels: int, factor: int, gain: float) -> Axis:
    content = max(round(pixels * gain), 1)
    # ultralytics puts an odd pixel of padding after the content; 0.1 decides the halves
    start = round((factor * cells - content) / 2 - 0.1)
    doubled: list[Step] = [factor * cells] if factor > 1 else []
    return Axis.through(cells, [*doubled, slice(start, start + content), pixels])


def _logits(prototypes: torch.Tensor, coefficients: torch.Tensor) -> Iterator[Array]:
    """Yield each mask's logits (h, w), computed in small groups to save memory."""
    for group in coefficients.split(_GROUP):
        yield from (group @ prototypes.flatten(1)).view(-1, *prototypes.shape[1:]).numpy()
