"""Polygons reproduce masks exactly: parts, holes, single pixels, touching corners."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shapely.validation import explain_validity

from segclip.files.polygons import has_holes, outlines, trace
from segclip.types import Array


def fill(polygons: list[Any], shape: tuple[int, ...]) -> Array:
    """Fill polygons by the even-odd rule at pixel centres: a slow and simple reference."""
    ys, xs = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, bool)
    for polygon in polygons:
        for ring in (polygon.outer, *polygon.holes):
            for (ax, ay), (bx, by) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                if ax == bx:
                    inside ^= (xs < ax) & (ys > min(ay, by)) & (ys < max(ay, by))
    return inside


@settings(max_examples=200, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_any_mask_is_reproduced(bitmap: Array) -> None:
    polygons = trace(bitmap)
    assert np.array_equal(fill(polygons, bitmap.shape), bitmap)
    count, _ = cv2.connectedComponents(bitmap.astype(np.uint8), connectivity=4)
    assert len(polygons) == count - 1
    assert any(polygon.holes for polygon in polygons) <= has_holes(np.pad(bitmap, 1))


def test_a_ring_holds_only_corners() -> None:
    (polygon,) = trace(np.ones((3, 5), bool), corner=(10, 20))
    assert sorted(map(tuple, polygon.outer.tolist())) == [(10, 20), (10, 23), (15, 20), (15, 23)]


def test_a_hole_belongs_to_the_part_around_it() -> None:
    bitmap = np.ones((7, 7), bool)
    bitmap[1:6, 1:6] = False
    bitmap[2:5, 2:5] = True
    bitmap[3, 3] = False
    polygons = trace(bitmap)
    assert [len(polygon.holes) for polygon in polygons] == [1, 1]
    assert has_holes(bitmap)
    assert not has_holes(np.ones((3, 3), bool))


def test_parts_that_touch_at_a_corner_stay_two() -> None:
    assert len(trace(np.eye(3, dtype=bool))) == 3
    assert trace(np.zeros((3, 3), bool)) == []


def shapes_of(bitmap: Array) -> list[shapely.Polygon]:
    return [shapely.Polygon(part.outer, part.holes) for part in trace(bitmap)]


@pytest.mark.parametrize("seed", range(10))
def test_noise_is_valid_and_keeps_its_area(seed: int) -> None:
    """Fault 17.20: outlines touched themselves at pixel corners in 197 of 200 noise masks."""
    rng = np.random.default_rng(seed)
    for _ in range(20):
        bitmap = rng.random((60, 80)) < rng.uniform(0.2, 0.9)
        parts = shapes_of(bitmap)
        assert all(part.is_valid for part in parts)
        whole = shapely.MultiPolygon(parts)
        assert whole.is_valid, explain_validity(whole)
        assert whole.area == bitmap.sum()


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize(
    "rows", [["###", "#.#", ".##"], ["####", "#.##", "##.#", "####"], ["#.#", ".#.", "#.#"]]
)
def test_pixels_that_touch_at_a_corner(rows: list[str], turn: int) -> None:
    bitmap = np.rot90(np.array([[pixel == "#" for pixel in row] for row in rows]), turn)
    whole = shapely.MultiPolygon(shapes_of(bitmap))
    assert whole.is_valid, explain_validity(whole)
    assert whole.area == bitmap.sum()
    assert np.array_equal(fill(trace(bitmap), bitmap.shape), bitmap)


@settings(max_examples=200, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.booleans())
def test_an_outline_filled_with_its_border_is_the_mask_without_holes(
    bitmap: Array, diagonal: bool
) -> None:
    """Fault 17.19: masks one or two pixels wide had no outline, or a misplaced one."""
    rings = outlines(bitmap, diagonal=diagonal, inset=0.01)
    count, _ = cv2.connectedComponents(bitmap.astype(np.uint8), connectivity=8 if diagonal else 4)
    assert len(rings) == count - 1
    filled = np.zeros(bitmap.shape, np.uint8)
    for ring in rings:
        assert len(ring) >= 4
        cv2.fillPoly(filled, [ring.astype(np.int32)], 1)
    without = np.zeros(bitmap.shape, np.uint8)
    contours, _ = cv2.findContours(
        bitmap.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(without, contours, -1, 1, -1)
    if diagonal or not has_holes(bitmap):
        assert np.array_equal(filled, without)
    if not diagonal:
        assert all(shapely.Polygon(ring).is_valid for ring in rings)


def test_outlines_of_an_empty_mask_and_of_a_mask_with_an_offset() -> None:
    assert outlines(np.zeros((0, 0), bool), diagonal=True, inset=0.01) == []
    (ring,) = outlines(np.ones((1, 1), bool), (10, 20), diagonal=False, inset=0.25)
    assert sorted(map(tuple, ring.tolist())) == [
        (10.25, 20.25),
        (10.25, 20.75),
        (10.75, 20.25),
        (10.75, 20.75),
    ]


def test_a_checkerboard_is_many_parts_or_one() -> None:
    bitmap = np.indices((300, 300)).sum(axis=0) % 2 > 0
    assert len(trace(bitmap)) == 45_000
    assert len(outlines(bitmap, diagonal=True, inset=0.01)) == 1
