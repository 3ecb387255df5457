"""Trace masks as polygons along their pixel edges, holes included: an exact vectorisation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress, pairwise

import cv2
import numpy as np

from ..types import Array

# A code of the pixels around a vertex that are inside: 1 for the top left, 2 the top right, and
_BOTTOM_LEFT, _BOTTOM_RIGHT = 4, 8
_RISING, _FALLING = 2 | 4, 1 | 8  # two pixels touch diagonally there, as / or as \
# number of border corners at a vertex, by its code
_CORNERS = np.array([0, 1, 1, 0, 1, 0, 2, 1, 1, 2, 0, 1, 0, 1, 1, 0])


@dataclass(frozen=True, eq=False)
class Polygon:
    """A 4-connected part of a mask: its outer ring and holes, int64 (K, 2) of x, y.

    Rings hold corners only and are not closed. Coordinates are those of pixel edges: pixel (x, y)
    covers [x, x + 1) x [y, y + 1). Outer rings run clockwise on the screen, holes anticlockwise. No
    ring touches itself; rings may touch each other in single points, as the simple features
    standard (OGC 06-103r4) allows.
    """

    outer: Array
    holes: tuple[Array, ...] = ()


def trace(bitmap: Array, corner: tuple[int, int] = (0, 0)) -> list[Polygon]:
    """Trace a mask, bool (h, w), with its top left pixel at ``corner`` (x, y): parts, top down."""
    if not bitmap.any():
        return []
    rings = _simplify(_follow(bitmap, diagonal=False))
    outer = rings.areas() > 0
    shapes = rings.split(rings.xy + corner)
    holes: dict[int, list[Array]] = {}
    if outer.all():
        parts = np.arange(len(shapes))
    else:  # a hole belongs to the part that contains its border pixels
        _, labels = cv2.connectedComponents(bitmap.astype(np.uint8), connectivity=4)
        parts = labels[rings.pixels()]
    for shape, part in compress(zip(shapes, parts.tolist(), strict=True), ~outer):
        holes.setdefault(part, []).append(shape)
    found = compress(zip(shapes, parts.tolist(), strict=True), outer)
    return [Polygon(shape, tuple(holes.get(part, ()))) for shape, part in found]


def outlines(
    bitmap: Array, corner: tuple[int, int] = (0, 0), *, diagonal: bool, inset: float
) -> list[Array]:
    """Trace each part's outer ring just inside its pixel edges: float (K, 2) of x, y, K >= 4.

    As real coordinates, these are the pixel edges moved inwards by ``inset`` px. Truncated to whole
    pixels and filled including the border, as OpenCV and Pillow do (and ultralytics and LabelMe
    through them), a ring reproduces exactly its part with holes filled. diagonal: pixels touching
    at a corner belong to one part, whose ring crosses from one to the other there.
    """
    if not bitmap.any():
        return []
    rings = _follow(bitmap, diagonal=diagonal)
    if not diagonal:
        rings = _simplify(rings)
    return list(compress(rings.inset(inset, corner), rings.areas() > 0))


def has_holes(bitmap: Array) -> bool:
    """Return whether a mask, bool (h, w), has holes."""
    outside = np.pad(~bitmap, 1, constant_values=True).astype(np.uint8)
    count, _ = cv2.connectedComponents(outside, connectivity=4)
    return bool(count > 2)  # label 0 is the mask, 1 the outside


@dataclass(frozen=True, eq=False)
class _Rings:
    """A mask's border as concatenated rings of corners, with the mask to the right of each edge.

    Each ring starts at its topmost, then leftmost corner. xy: int64 (C, 2). touching: bool (C,),
    whether two pixels touch diagonally at the vertex, which then is two corners. starts: int64
    (R,), the index of each ring's first corner.
    """

    xy: Array
    touching: Array
    starts: Array

    def split(self, values: Array, counts: Array | None = None) -> list[Array]:
        """Split rows of corners by ring. counts: int (C,), rows per corner; 1 each by default."""
        starts = self.starts
        if counts is not None:
            starts = np.concatenate([[0], np.cumsum(counts)])[starts]
        return np.split(values, starts[1:])

    def areas(self) -> Array:
        """Return each ring's signed area, float64 (R,), negative for holes."""
        (x, y), (to_x, to_y) = self.xy.T.astype(float), self.xy[self._next()].T.astype(float)
        areas: Array = np.add.reduceat(x * to_y - to_x * y, self.starts) / 2
        return areas

    def pixels(self) -> tuple[Array, Array]:
        """Return row and column of the mask's pixel to the right of each ring's first edge."""
        x, y = self.xy[self.starts].T
        to_x, to_y = self._directions()[self.starts].T
        return y + (to_y + to_x - 1) // 2, x + (to_x - to_y - 1) // 2

    def inset(self, by: float, corner: tuple[int, int]) -> list[Array]:
        """Move corners into the mask, float (K, 2) per ring.

        A corner where the ring crosses to a diagonally touching pixel becomes two.
        """
        outgoing = self._directions()
        incoming = np.empty_like(outgoing)
        incoming[self._next()] = outgoing
        inwards, before = (np.stack([-to[:, 1], to[:, 0]], axis=1) for to in (outgoing, incoming))
        crosses = self.touching & ((incoming * inwards).sum(axis=1) > 0)  # turns left
        ends = np.where(crosses[:, None], before - incoming, before + inwards)
        offsets = np.stack([ends, inwards + outgoing], axis=1) * by  # (C, 2, 2)
        points = offsets + (self.xy + corner)[:, None]
        kept = np.stack([np.ones_like(crosses), crosses], axis=1)
        return self.split(points[kept], 1 + crosses)

    def _next(self) -> Array:
        """Return the index of the corner after each."""
        following = np.arange(1, len(self.xy) + 1)
        following[np.append(self.starts[1:], len(self.xy)) - 1] = self.starts
        return following

    def _directions(self) -> Array:
        """Return the direction in which the border leaves each corner, int64 (C, 2)."""
        signs: Array = np.sign(self.xy[self._next()] - self.xy)
        return signs


def _follow(bitmap: Array, *, diagonal: bool) -> _Rings:
    """Follow the border; at touching pixels stay on the same one, or cross if ``diagonal``."""
    inside = np.pad(bitmap, 1).view(np.uint8)
    codes = inside[:-1, :-1] | inside[:-1, 1:] << 1 | inside[1:, :-1] << 2 | inside[1:, 1:] << 3
    corners = _CORNERS[codes]
    ys, xs = np.nonzero(corners)
    copies = corners[ys, xs]
    ys, xs = np.repeat(ys, copies), np.repeat(xs, copies)
    code, touching = codes[ys, xs], np.repeat(copies == 2, copies)
    # consecutive corners pair up to horizontal edges along a row, to vertical ones down a column
    columns = np.lexsort((ys, xs))
    # of a vertex's two corners the first ends the edges from the left and from above: both edges of
    # the top left pixel or, for the other diagonal, one edge of each pixel
    swapped = np.flatnonzero(touching & (code == (_FALLING if diagonal else _RISING)))[::2]
    ranks = np.empty_like(columns)
    ranks[columns] = np.arange(len(columns))
    first = ranks[swapped]
    columns[first], columns[first + 1] = swapped + 1, swapped
    left, right = np.arange(len(xs)).reshape(-1, 2).T
    upper, lower = columns.reshape(-1, 2).T
    rightwards, downwards = code[left] & _BOTTOM_RIGHT != 0, code[upper] & _BOTTOM_LEFT != 0
    following = np.empty(len(xs), np.int64)
    for start, end, forwards in ((left, right, rightwards), (upper, lower, downwards)):
        following[np.where(forwards, start, end)] = np.where(forwards, end, start)
    order, starts = _cycles(following.tolist())
    return _Rings(np.stack([xs, ys], axis=1)[order], touching[order], starts)


def _cycles(following: list[int]) -> tuple[Array, Array]:
    """Return the cycles of a permutation, concatenated, and where each starts; empties the list.

    following: the index after each.
    """
    order: list[int] = []
    starts: list[int] = []
    for start in range(len(following)):
        index = start
        if following[index] >= 0:
            starts.append(len(order))
        while following[index] >= 0:
            order.append(index)
            following[index], index = -1, following[index]
    return np.array(order, np.int64), np.array(starts, np.int64)


def _simplify(rings: _Rings) -> _Rings:
    """Split rings at the vertices where they touch themselves: the enclosed area is a hole."""
    if not rings.touching.any():
        return rings
    vertices = (rings.xy[:, 1] * (rings.xy[:, 0].max() + 1) + rings.xy[:, 0]).tolist()
    touching = rings.touching.tolist()
    bounds = [*rings.starts.tolist(), len(vertices)]
    order: list[int] = []
    starts = []
    for begin, end in pairwise(bounds):
        path: list[int] = []
        visited: dict[int, int] = {}  # position on the path of each vertex that may recur
        for corner in range(begin, end):
            if touching[corner]:
                start = visited.get(vertices[corner], -1)
                if start >= 0:
                    for left in path[start:]:
                        visited.pop(vertices[left], None)
                    starts.append(len(order))
                    order += path[start:]
                    del path[start:]
                visited[vertices[corner]] = len(path)
            path.append(corner)
        starts.append(len(order))
        order += path
    return _Rings(rings.xy[order], rings.touching[order], np.array(starts, np.int64))
