"""Trace masks as polygons along the edges of their pixels, holes included: what a raster holds,
exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress, pairwise

import cv2
import numpy as np

from ..types import Array

# A vertex's code says which of the four pixels around it are inside: top left 1, top right 2, and
_BOTTOM_LEFT, _BOTTOM_RIGHT = 4, 8
_RISING, _FALLING = 2 | 4, 1 | 8  # two pixels touch there, as / or as \
_CORNERS = np.array(
    [0, 1, 1, 0, 1, 0, 2, 1, 1, 2, 0, 1, 0, 1, 1, 0]
)  # of the border at a vertex, by its code


@dataclass(frozen=True, eq=False)
class Polygon:
    """Hold one 4-connected part of a mask: rings int64 (K, 2) of x, y, corners only, not closed;
    the outer one first.

    Coordinates are those of pixel edges: pixel (x, y) covers [x, x + 1) x [y, y + 1). Outer rings
    run clockwise on the screen, holes the other way round. No ring meets itself; rings may meet
    each other in single points, as the simple features standard (OGC 06-103r4) allows.
    """

    outer: Array
    holes: tuple[Array, ...] = ()


def trace(bitmap: Array, corner: tuple[int, int] = (0, 0)) -> list[Polygon]:
    """Trace a mask, bool (h, w), whose top left pixel lies at ``corner`` (x, y): its parts from the
    top down.
    """
    if not bitmap.any():
        return []
    rings = _simplify(_follow(bitmap, diagonal=False))
    outer = rings.areas() > 0
    shapes = rings.split(rings.xy + corner)
    holes: dict[int, list[Array]] = {}
    if outer.all():
        parts = np.arange(len(shapes))
    else:  # a hole belongs to the part its border pixels are of
        _, labels = cv2.connectedComponents(bitmap.astype(np.uint8), connectivity=4)
        parts = labels[rings.pixels()]
    for shape, part in compress(zip(shapes, parts.tolist(), strict=True), ~outer):
        holes.setdefault(part, []).append(shape)
    found = compress(zip(shapes, parts.tolist(), strict=True), outer)
    return [Polygon(shape, tuple(holes.get(part, ()))) for shape, part in found]


def outlines(
    bitmap: Array, corner: tuple[int, int] = (0, 0), *, diagonal: bool, inset: float
) -> list[Array]:
    """Trace each part's outer ring just inside the edges of its pixels: float (K, 2) of x, y, K at
    least 4.

    Read as real numbers, these are the pixels' edges but for ``inset`` px. Cut to whole pixels and
    filled with the border, as OpenCV and Pillow do and with them ultralytics and LabelMe, it is
    exactly the part, its holes filled. diagonal: pixels that touch at a corner are of one part,
    whose ring crosses there from one to the other.
    """
    if not bitmap.any():
        return []
    rings = _follow(bitmap, diagonal=diagonal)
    if not diagonal:
        rings = _simplify(rings)
    return list(compress(rings.inset(inset, corner), rings.areas() > 0))


def has_holes(bitmap: Array) -> bool:
    """Tell whether a mask, bool (h, w), surrounds pixels that are not in it."""
    outside = np.pad(~bitmap, 1, constant_values=True).astype(np.uint8)
    count, _ = cv2.connectedComponents(outside, connectivity=4)
    return bool(count > 2)  # label 0 is the mask, 1 the outside


@dataclass(frozen=True, eq=False)
class _Rings:
    """Hold a mask's border as rings of corners, one ring after the other, the mask on their right
    hand.

    Each starts at its topmost and leftmost corner. xy: int64 (C, 2). touching: bool (C,), whether
    two pixels touch at the vertex, which is then two corners. starts: int64 (R,), the first corner
    of each ring.
    """

    xy: Array
    touching: Array
    starts: Array

    def split(self, values: Array, counts: Array | None = None) -> list[Array]:
        """Part rows of corners by ring. counts: int (C,), the rows each corner has; 1 where left
        out.
        """
        starts = self.starts
        if counts is not None:
            starts = np.concatenate([[0], np.cumsum(counts)])[starts]
        return np.split(values, starts[1:])

    def areas(self) -> Array:
        """Return each ring's area, float64 (R,), that of a hole below 0."""
        (x, y), (to_x, to_y) = self.xy.T.astype(float), self.xy[self._after()].T.astype(float)
        areas: Array = np.add.reduceat(x * to_y - to_x * y, self.starts) / 2
        return areas

    def pixels(self) -> tuple[Array, Array]:
        """Return row and column of the mask's pixel to the right of each ring's first edge."""
        x, y = self.xy[self.starts].T
        to_x, to_y = self._ways()[self.starts].T
        return y + (to_y + to_x - 1) // 2, x + (to_x - to_y - 1) // 2

    def inset(self, by: float, corner: tuple[int, int]) -> list[Array]:
        """Move corners into the mask, float (K, 2) a ring; one where it crosses to a touching pixel
        becomes two.
        """
        goes = self._ways()
        came = np.empty_like(goes)
        came[self._after()] = goes
        inwards, before = (np.stack([-way[:, 1], way[:, 0]], axis=1) for way in (goes, came))
        crosses = self.touching & ((came * inwards).sum(axis=1) > 0)  # turns left
        ends = np.where(crosses[:, None], before - came, before + inwards)
        both = (
            np.stack([ends, inwards + goes], axis=1) * by + (self.xy + corner)[:, None]
        )  # (C, 2, 2)
        kept = np.stack([np.ones_like(crosses), crosses], axis=1)
        return self.split(both[kept], 1 + crosses)

    def _after(self) -> Array:
        """Return the place of the corner that follows each."""
        after = np.arange(1, len(self.xy) + 1)
        after[np.append(self.starts[1:], len(self.xy)) - 1] = self.starts
        return after

    def _ways(self) -> Array:
        """Return the direction in which the border leaves each corner, int64 (C, 2)."""
        return np.sign(self.xy[self._after()] - self.xy)


def _follow(bitmap: Array, *, diagonal: bool) -> _Rings:
    """Follow the border; where two pixels touch it goes on along the same pixel, or crosses to the
    other one.
    """
    inside = np.pad(bitmap, 1).view(np.uint8)
    codes = inside[:-1, :-1] | inside[:-1, 1:] << 1 | inside[1:, :-1] << 2 | inside[1:, 1:] << 3
    corners = _CORNERS[codes]
    ys, xs = np.nonzero(corners)
    copies = corners[ys, xs]
    ys, xs = np.repeat(ys, copies), np.repeat(xs, copies)
    code, touching = codes[ys, xs], np.repeat(copies == 2, copies)
    # along a row corners pair up to horizontal edges, down a column to vertical ones
    columns = np.lexsort((ys, xs))
    # of a vertex's two corners the first ends the edges from the left and from above: those of the
    # top left pixel, or,
    # where the pixels touch the other way, of one each
    swapped = np.flatnonzero(touching & (code == (_FALLING if diagonal else _RISING)))[::2]
    places = np.empty_like(columns)
    places[columns] = np.arange(len(columns))
    first = places[swapped]
    columns[first], columns[first + 1] = swapped + 1, swapped
    left, right = np.arange(len(xs)).reshape(-1, 2).T
    upper, lower = columns.reshape(-1, 2).T
    rightwards, downwards = code[left] & _BOTTOM_RIGHT != 0, code[upper] & _BOTTOM_LEFT != 0
    after = np.empty(len(xs), np.int64)
    for start, end, forwards in ((left, right, rightwards), (upper, lower, downwards)):
        after[np.where(forwards, start, end)] = np.where(forwards, end, start)
    order, starts = _cycles(after.tolist())
    return _Rings(np.stack([xs, ys], axis=1)[order], touching[order], starts)


def _cycles(after: list[int]) -> tuple[Array, Array]:
    """Order places so that each is followed by ``after`` it; return the order and where each cycle
    starts in it.
    """
    order: list[int] = []
    starts: list[int] = []
    for start in range(len(after)):
        place = start
        if after[place] >= 0:
            starts.append(len(order))
        while after[place] >= 0:
            order.append(place)
            after[place], place = -1, after[place]
    return np.array(order, np.int64), np.array(starts, np.int64)


def _simplify(rings: _Rings) -> _Rings:
    """Split rings that meet themselves at the vertices where they do: what they enclose there is a
    hole.
    """
    if not rings.touching.any():
        return rings
    vertices = (rings.xy[:, 1] * (rings.xy[:, 0].max() + 1) + rings.xy[:, 0]).tolist()
    touching = rings.touching.tolist()
    bounds = [*rings.starts.tolist(), len(vertices)]
    order: list[int] = []
    starts = []
    for begin, end in pairwise(bounds):
        path: list[int] = []
        met: dict[int, int] = {}  # where on the path a vertex is that may be met again
        for corner in range(begin, end):
            if touching[corner]:
                start = met.get(vertices[corner], -1)
                if start >= 0:
                    for left in path[start:]:
                        met.pop(vertices[left], None)
                    starts.append(len(order))
                    order += path[start:]
                    del path[start:]
                met[vertices[corner]] = len(path)
            path.append(corner)
        starts.append(len(order))
        order += path
    return _Rings(rings.xy[order], rings.touching[order], np.array(starts, np.int64))
