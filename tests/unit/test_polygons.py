"""Polygons hold exactly what the mask holds: parts, holes, single pixels, corners that touch."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segclip.polygons import has_holes, outline, trace
from segclip.types import Array


def fill(polygons: list, shape: tuple[int, ...]) -> Array:
    """Paint polygons by the even-odd rule at pixel centres, the slow and plain way."""
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
def test_any_mask_comes_back(bitmap: Array) -> None:
    polygons = trace(bitmap)
    assert np.array_equal(fill(polygons, bitmap.shape), bitmap)
    count, _ = cv2.connectedComponents(bitmap.astype(np.uint8), connectivity=4)
    assert len(polygons) == count - 1
    assert any(polygon.holes for polygon in polygons) <= has_holes(np.pad(bitmap, 1))


def test_a_ring_names_only_its_corners() -> None:
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


@pytest.mark.parametrize("seed", range(5))
def test_an_outline_filled_with_its_border_is_the_mask(seed: int) -> None:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(60, 80)), (0, 0), 6)
    bitmap = np.asarray(noise > 0)
    filled = np.zeros(bitmap.shape, np.uint8)
    cv2.fillPoly(filled, [part.astype(np.int32) for part in outline(bitmap)], 1)
    assert (filled.astype(bool) >= bitmap).all()
    if not has_holes(bitmap):
        assert np.array_equal(filled.astype(bool), bitmap)
