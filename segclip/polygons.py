"""Trace masks as polygons along the edges of their pixels, holes included: what a raster holds, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .types import Array

_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # right, down, left, up


@dataclass(frozen=True, eq=False)
class Polygon:
    """Hold one 4-connected part of a mask: rings int64 (K, 2) of x, y, corners only, not closed; the outer one first.

    Coordinates are those of pixel edges: pixel (x, y) covers [x, x + 1) x [y, y + 1). Outer rings run clockwise on the
    screen, holes the other way round.
    """

    outer: Array
    holes: tuple[Array, ...] = ()


def trace(bitmap: Array, corner: tuple[int, int] = (0, 0)) -> list[Polygon]:
    """Trace a mask, bool (h, w), whose top left pixel lies at ``corner`` (x, y): its parts from the top down."""
    if not bitmap.any():
        return []
    _, parts = cv2.connectedComponents(bitmap.astype(np.uint8), connectivity=4)
    outers: dict[int, Array] = {}
    holes: dict[int, list[Array]] = {}
    for ring in _rings(bitmap):
        part = int(parts[_pixel_inside(ring)])
        moved = ring + corner
        if _area(ring) > 0:
            outers[part] = moved
        else:
            holes.setdefault(part, []).append(moved)
    return [Polygon(outers[part], tuple(holes.get(part, ()))) for part in sorted(outers)]


def outline(bitmap: Array, corner: tuple[int, int] = (0, 0)) -> list[Array]:
    """Give each 8-connected part's outline through the centres of its border pixels, without its holes: (K, 2) x, y.

    What readers expect that fill a polygon border included, as Pillow and OpenCV do.
    """
    found, _ = cv2.findContours(bitmap.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=corner)
    return [contour[:, 0].astype(np.int64) for contour in found]


def has_holes(bitmap: Array) -> bool:
    """Tell whether a mask, bool (h, w), surrounds pixels that are not in it."""
    outside = np.pad(~bitmap, 1, constant_values=True).astype(np.uint8)
    count, _ = cv2.connectedComponents(outside, connectivity=4)
    return bool(count > 2)  # label 0 is the mask, 1 the outside


def _rings(bitmap: Array) -> list[Array]:
    """Follow the border with the mask on the right hand: rings of corners, int64 (K, 2)."""
    padded = np.pad(bitmap, 1)
    width = padded.shape[1] + 1
    starts: list[Array] = []
    for turn, (dx, dy) in enumerate(
        ((0, 1), (1, 0), (0, -1), (-1, 0))
    ):  # where the outside lies: up, right, down, left
        neighbour = np.roll(padded, (dy, -dx), axis=(0, 1))
        ys, xs = np.nonzero(padded & ~neighbour)
        # an edge starts at the corner that has the mask on its right: top left, top right, bottom right, bottom left
        ys, xs = ys + (turn in (2, 3)), xs + (turn in (1, 2))
        starts.append(ys * width + xs)
    leaving: dict[int, list[int]] = {}
    for direction, vertices in enumerate(starts):
        for vertex in vertices.tolist():
            leaving.setdefault(vertex, []).append(direction)
    moves = [int(dx + dy * width) for dx, dy in _STEPS]
    rings = []
    for start in sorted(leaving):
        while leaving.get(start):
            rings.append(_follow(leaving, start, moves, width))
    return rings


def _follow(leaving: dict[int, list[int]], start: int, moves: list[int], width: int) -> Array:
    vertex, direction = start, leaving[start].pop()
    corners = []
    before = -1
    first = direction
    while True:
        if direction != before:
            corners.append(vertex)
        vertex, before = vertex + moves[direction], direction
        if vertex == start and not (len(leaving[vertex]) and _right_of(before) in leaving[vertex]):
            break
        choices = leaving[vertex]
        # where two parts touch at a corner, keep to the right: they stay two
        direction = _right_of(before) if _right_of(before) in choices else choices[0]
        choices.remove(direction)
    if before == first and len(corners) > 1:
        corners = corners[1:]
    ys, xs = np.divmod(np.array(corners, np.int64), width)
    return np.stack([xs - 1, ys - 1], axis=1)


def _right_of(direction: int) -> int:
    return (direction + 1) % 4


def _pixel_inside(ring: Array) -> tuple[int, int]:
    """Give row and column of the mask's pixel to the right of a ring's first edge."""
    (x, y), (nx, ny) = ring[0], ring[1]
    dx, dy = int(np.sign(nx - x)), int(np.sign(ny - y))
    offsets = {(1, 0): (0, 0), (0, 1): (-1, 0), (-1, 0): (-1, -1), (0, -1): (0, -1)}
    ox, oy = offsets[dx, dy]
    return int(y + oy), int(x + ox)


def _area(ring: Array) -> float:
    x, y = ring.T.astype(float)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)
