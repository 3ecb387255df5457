"""Assemble YOLO's prototype masks inside each box, at the image's own resolution, without ever building a full frame.

A mask is where rows @ (coefficients . prototypes) @ columns^T is positive: bilinear sampling is linear and separable,
so each axis is a matrix with two or three weights a pixel, and a box needs only its own rows and columns of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import interpolate

from ..types import Array, Masks

_STRIDE = 4  # input pixels a prototype cell covers, in every YOLO segmentation head
_BAND = 48  # image rows sampled at once: few enough to stay in cache, enough to feed the matrix product
_GROUP = 16  # masks whose logits are computed at once


@dataclass(frozen=True, eq=False)
class _Axis:
    """Sample one axis of the image from the prototypes: weights float32 (pixels, cells), nonzero in [first, last)."""

    weights: Array
    first: Array
    last: Array


def assemble(prototypes: torch.Tensor, coefficients: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> Masks:
    """Give the N masks ultralytics calls retina masks, row for row.

    prototypes: float32 (M, h, w). coefficients: float32 (N, M). boxes: float32 (N, 4) xyxy in pixels of the image of
    ``size`` (H, W). All on the CPU.
    """
    height, width = size
    corners = boxes.ceil().int().numpy().clip(0, (width, height, width, height))
    rows, columns = _axes((prototypes.shape[1], prototypes.shape[2]), size)
    # trimmed one at a time, so that no more than one mask is ever held untrimmed
    masks = [
        Masks.from_windows([(box[0], box[1], _sample(cells, box, rows, columns))], size)
        for cells, box in zip(_logits(prototypes, coefficients), corners, strict=True)
    ]
    tight = np.concatenate([mask.boxes for mask in masks]) if masks else corners
    return Masks(tight, tuple(mask.bitmaps[0] for mask in masks), size)


def _logits(prototypes: torch.Tensor, coefficients: torch.Tensor) -> Iterator[Array]:
    """Give each mask's logits (h, w), computed a few at a time: all together would be a good part of the memory."""
    for group in coefficients.split(_GROUP):
        yield from (group @ prototypes.flatten(1)).view(-1, *prototypes.shape[1:]).numpy()


def _sample(cells: Array, box: Array, rows: _Axis, columns: _Axis) -> Array:
    """Tell where the interpolated logits are positive inside a box: bool (y2 - y1, x2 - x1)."""
    x1, y1, x2, y2 = box
    if x1 >= x2 or y1 >= y2:
        return np.zeros((0, 0), bool)
    left, right, top = columns.first[x1], columns.last[x2 - 1], rows.first[y1]
    lines = cells[top : rows.last[y2 - 1], left:right] @ columns.weights[x1:x2, left:right].T  # (cells, x2 - x1)
    bitmap = np.empty((y2 - y1, x2 - x1), bool)
    for start in range(y1, y2, _BAND):
        end = min(start + _BAND, y2)
        first, last = rows.first[start], rows.last[end - 1]
        band = rows.weights[start:end, first:last] @ lines[first - top : last - top]
        np.greater(band, 0, out=bitmap[start - y1 : end - y1])
    return bitmap


def _axes(cells: tuple[int, int], size: tuple[int, int]) -> tuple[_Axis, _Axis]:
    """Lay the prototype grid (h, w), letterbox padding removed, over an image of ``size`` (H, W)."""
    gain = min(_STRIDE * cell / full for cell, full in zip(cells, size, strict=True))
    padding = [_STRIDE * cell - max(round(full * gain), 1) for cell, full in zip(cells, size, strict=True)]
    # upstream first doubles or quadruples the grid where the padding would otherwise end inside a cell
    factor = next((factor for factor in (1, 2) if not any(pad % (8 // factor) for pad in padding)), 4)
    gain = min(factor * cell / full for cell, full in zip(cells, size, strict=True))
    rows, columns = (_axis(cell, full, factor, gain) for cell, full in zip(cells, size, strict=True))
    return rows, columns


def _axis(cells: int, pixels: int, factor: int, gain: float) -> _Axis:
    """Read the weights of one axis off the interpolation itself: it is linear, so the identity shows its matrix."""
    grid = torch.eye(cells)[None]
    if factor > 1:
        grid = interpolate(grid, scale_factor=factor, mode="linear")
    content = max(round(pixels * gain), 1)
    start = round((factor * cells - content) / 2 - 0.1)
    weights = interpolate(grid[..., start : start + content], size=pixels, mode="linear")[0].T.contiguous().numpy()
    used = weights > 0
    return _Axis(weights, used.argmax(axis=1), cells - used[:, ::-1].argmax(axis=1))
