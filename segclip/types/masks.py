"""Masks as tables of N boxes and the bitmaps inside them.

Boxes are xyxy in pixels, half-open; a size is (H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import summary

Array: TypeAlias = npt.NDArray[Any]
Rows: TypeAlias = "slice | Sequence[int] | Array"


def row_indices(rows: Rows, count: int) -> Array:
    """Turn a slice, boolean mask or sequence of indices into int64 indices (M,)."""
    if isinstance(rows, slice):
        return np.arange(count)[rows]
    array = np.asarray(rows)
    if array.dtype == bool:
        if array.shape != (count,):
            raise IndexError(f"boolean rows must have shape ({count},), got {array.shape}")
        return np.flatnonzero(array)
    return array.astype(np.int64).reshape(-1)


@dataclass(frozen=True, eq=False)
class Masks:
    """N masks, each a box and the bitmap inside it.

    A dense stack of 100 masks at 12 megapixels would take 1.2 GB. boxes: int32 (N, 4) xyxy
    half-open. bitmaps: N bool arrays (y2 - y1, x2 - x1). size: (H, W) of the image. A mask without
    pixels has a box and a bitmap of area 0.
    """

    boxes: Array
    bitmaps: tuple[Array, ...]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        height, width = self.size
        boxes = np.asarray(self.boxes, dtype=np.int32).reshape(-1, 4)
        if len(boxes) != len(self.bitmaps):
            raise ValueError(
                f"want one bitmap per box, got {len(self.bitmaps)} bitmaps for {len(boxes)} boxes"
            )
        if len(boxes) and (
            boxes.min() < 0 or boxes[:, 2].max() > width or boxes[:, 3].max() > height
        ):
            raise ValueError(f"boxes must lie inside (H, W) = {self.size}")
        for (x1, y1, x2, y2), bitmap in zip(boxes.tolist(), self.bitmaps, strict=True):
            if bitmap.dtype != bool or bitmap.shape != (y2 - y1, x2 - x1):
                raise ValueError(
                    f"want a bool bitmap {(y2 - y1, x2 - x1)}, got {bitmap.dtype} {bitmap.shape}"
                )
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "bitmaps", tuple(self.bitmaps))

    def __repr__(self) -> str:
        headline = f"Masks: {len(self)} of an image of (H, W) = {self.size}"
        return summary.table(headline, self[: summary.ROWS].described(), len(self))

    def described(self) -> dict[str, list[str]]:
        """Return columns of text for ``summary.table``."""
        boxes = [",".join(map(str, box)) for box in self.boxes.tolist()]
        return {"box x1,y1,x2,y2": boxes, "area": [str(area) for area in self.areas.tolist()]}

    @classmethod
    def empty(cls, size: tuple[int, int]) -> Masks:
        """Make an empty table for an image of ``size`` (H, W)."""
        return cls(np.zeros((0, 4), np.int32), (), size)

    @classmethod
    def from_dense(cls, dense: Array, size: tuple[int, int] | None = None) -> Masks:
        """Cut a dense stack (N, H, W) of any dtype, nonzero inside, to tight boxes.

        size: (H, W), needed if N is 0.
        """
        stack = np.asarray(dense).astype(bool)
        if stack.ndim != 3:
            raise ValueError(f"want (N, H, W), got {stack.shape}")
        return cls.from_windows(
            [(0, 0, mask) for mask in stack], size or (stack.shape[1], stack.shape[2])
        )

    @classmethod
    def from_windows(
        cls, windows: Sequence[tuple[int, int, Array]], size: tuple[int, int]
    ) -> Masks:
        """Trim N windows (x, y, bool bitmap (h, w)), with corner (x, y), to tight boxes."""
        boxes, bitmaps = np.zeros((len(windows), 4), np.int32), []
        for row, (left, top, bitmap) in enumerate(windows):
            ys, xs = np.flatnonzero(bitmap.any(axis=1)), np.flatnonzero(bitmap.any(axis=0))
            if not len(ys):
                bitmaps.append(np.zeros((0, 0), bool))
                continue
            x1, x2, y1, y2 = xs[0], xs[-1] + 1, ys[0], ys[-1] + 1
            boxes[row] = left + x1, top + y1, left + x2, top + y2
            bitmaps.append(np.ascontiguousarray(bitmap[y1:y2, x1:x2], dtype=bool))
        return cls(boxes, tuple(bitmaps), size)

    @classmethod
    def solid(cls, xyxy: Array, size: tuple[int, int]) -> Masks:
        """Fill boxes, float (N, 4) xyxy pixels, including partly covered pixels."""
        corners = np.hstack([np.floor(xyxy[:, :2]), np.ceil(xyxy[:, 2:])]).astype(np.int32)
        return cls(
            corners, tuple(np.ones((y2 - y1, x2 - x1), bool) for x1, y1, x2, y2 in corners), size
        )

    @classmethod
    def join(cls, parts: Sequence[Masks]) -> Masks:
        """Stack one or more tables of one image."""
        boxes = np.concatenate([part.boxes for part in parts])
        return cls(boxes, tuple(bitmap for part in parts for bitmap in part.bitmaps), parts[0].size)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Rows) -> Masks:
        chosen = row_indices(rows, len(self))
        return Masks(self.boxes[chosen], tuple(self.bitmaps[i] for i in chosen), self.size)

    @cached_property
    def areas(self) -> Array:
        """Count each mask's pixels: int64 (N,)."""
        return np.array([np.count_nonzero(bitmap) for bitmap in self.bitmaps], np.int64)

    def full(self, row: int) -> Array:
        """Paint mask ``row`` into its image's frame: bool (H, W)."""
        frame = np.zeros(self.size, bool)
        x1, y1, x2, y2 = self.boxes[row]
        frame[y1:y2, x1:x2] = self.bitmaps[row]
        return frame

    def to_dense(self) -> Array:
        """Paint every mask into its image's frame: bool (N, H, W); costs N x H x W bytes."""
        dense = np.zeros((len(self), *self.size), bool)
        for row, ((x1, y1, x2, y2), bitmap) in enumerate(
            zip(self.boxes, self.bitmaps, strict=True)
        ):
            dense[row, y1:y2, x1:x2] = bitmap
        return dense

    def contains(self, xy: Array) -> Array:
        """Mark which masks contain which pixels, int (K, 2) x, y: bool (N, K)."""
        inside = (self.boxes[:, None, :2] <= xy) & (xy < self.boxes[:, None, 2:])  # (N, K, 2)
        hits = np.logical_and(inside[..., 0], inside[..., 1])
        for row, k in zip(*np.nonzero(hits), strict=True):
            x, y = xy[k] - self.boxes[row, :2]
            hits[row, k] = self.bitmaps[row][y, x]
        return hits

    def union(self, box: Array) -> Array:
        """Return the union of all masks inside a box xyxy: bool (y2 - y1, x2 - x1)."""
        x1, y1, x2, y2 = box
        painted = np.zeros((y2 - y1, x2 - x1), bool)
        for (left, top, right, bottom), bitmap in zip(self.boxes, self.bitmaps, strict=True):
            ax, ay, bx, by = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
            if ax < bx and ay < by:
                painted[ay - y1 : by - y1, ax - x1 : bx - x1] |= bitmap[
                    ay - top : by - top, ax - left : bx - left
                ]
        return painted

    def intersections(self, other: Masks, wanted: Array | None = None) -> Array:
        """Count the pixels each pair shares: int64 (N, M); pairs of disjoint boxes cost nothing.

        wanted: bool (N, M), the pairs to count; 0 for the others. Must be symmetric if ``other`` is
        ``self``.
        """
        if self.size != other.size:
            raise ValueError(f"masks of different images: {self.size} and {other.size}")
        shared = np.zeros((len(self), len(other)), np.int64)
        corner = np.maximum(self.boxes[:, None, :2], other.boxes[None, :, :2])  # (N, M, 2)
        end = np.minimum(self.boxes[:, None, 2:], other.boxes[None, :, 2:])  # (N, M, 2)
        counted = (end > corner).all(axis=2)
        if wanted is not None:
            counted &= wanted
        if other is self:
            counted = np.triu(counted, 1)  # the rest follows by symmetry
        for i, j in zip(*np.nonzero(counted), strict=True):
            (x1, y1), (x2, y2) = corner[i, j], end[i, j]
            (ax, ay), (bx, by) = self.boxes[i, :2], other.boxes[j, :2]
            a = self.bitmaps[i][y1 - ay : y2 - ay, x1 - ax : x2 - ax]
            b = other.bitmaps[j][y1 - by : y2 - by, x1 - bx : x2 - bx]
            shared[i, j] = np.count_nonzero(a & b)
        return shared + shared.T + np.diag(self.areas) if other is self else shared

    def iou(self, other: Masks) -> Array:
        """Return the IoU of each pair: float64 (N, M) in [0, 1]; 0 for two empty masks."""
        shared = self.intersections(other)
        union = self.areas[:, None] + other.areas[None, :] - shared
        shares: Array = shared / np.maximum(union, 1)
        return shares
