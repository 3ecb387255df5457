"""Masks as boxes and bitmaps: exact, half-open, tight, and empty ones are normal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segclip.types import (
    Array,
    Masks,
    row_indices,
)

SIZE = (9, 13)


def random_dense(count: int, seed: int, share: float = 0.3) -> Array:
    return np.random.default_rng(seed).random((count, *SIZE)) < share


class TestMasks:
    def test_boxes_are_half_open_and_tight(self) -> None:
        dense = np.zeros((1, *SIZE), bool)
        dense[0, 2:5, 3:8] = True
        masks = Masks.from_dense(dense)
        assert masks.boxes.tolist() == [[3, 2, 8, 5]]
        assert masks.bitmaps[0].all()
        assert masks.areas.tolist() == [15]
        x1, y1, x2, y2 = masks.boxes[0]
        assert (x2 - x1) * (y2 - y1) == masks.areas[0]

    def test_a_single_pixel_in_the_last_corner(self) -> None:
        dense = np.zeros((1, *SIZE))
        dense[0, -1, -1] = 0.2
        masks = Masks.from_dense(dense)
        assert masks.boxes.tolist() == [[12, 8, 13, 9]]
        assert masks.areas.tolist() == [1]

    @given(st.integers(0, 5), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02, 0.3, 1.0]))
    def test_dense_round_trip(self, count: int, seed: int, share: float) -> None:
        dense = random_dense(count, seed, share)
        masks = Masks.from_dense(dense)
        assert np.array_equal(masks.to_dense(), dense)
        assert np.array_equal(masks.areas, dense.sum(axis=(1, 2)))
        assert all(np.array_equal(masks.full(row), dense[row]) for row in range(count))

    @given(
        st.integers(0, 4),
        st.integers(0, 4),
        st.integers(0, 2**32 - 1),
        st.sampled_from([0.0, 0.02, 0.4]),
    )
    def test_intersections_and_iou_are_those_of_the_dense_stacks(
        self, n: int, m: int, seed: int, share: float
    ) -> None:
        a, b = random_dense(n, seed, share), random_dense(m, seed + 1, share)
        shared = np.array([[np.count_nonzero(x & y) for y in b] for x in a], np.int64).reshape(n, m)
        union = np.array([[np.count_nonzero(x | y) for y in b] for x in a], np.int64).reshape(n, m)
        masks, other = Masks.from_dense(a), Masks.from_dense(b)
        assert np.array_equal(masks.intersections(other), shared)
        assert np.allclose(
            masks.iou(other), np.divide(shared, union, out=np.zeros((n, m)), where=union > 0)
        )
        wanted = np.random.default_rng(seed).random((n, m)) < 0.5
        assert np.array_equal(masks.intersections(other, wanted), shared * wanted)
        assert np.array_equal(masks.intersections(masks), masks.intersections(Masks.from_dense(a)))

    @given(st.integers(0, 4), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02, 0.4]))
    def test_the_union_inside_a_box_is_that_of_the_dense_stack(
        self, count: int, seed: int, share: float
    ) -> None:
        dense = random_dense(count, seed, share)
        x1, y1, x2, y2 = 2, 1, 9, 7
        inside = dense[:, y1:y2, x1:x2].any(axis=0)
        assert np.array_equal(Masks.from_dense(dense).union(np.array([x1, y1, x2, y2])), inside)

    def test_windows_are_pasted_at_their_corner(self) -> None:
        bitmap = np.array([[0, 0, 0], [0, 1, 1]], bool)
        masks = Masks.from_windows([(4, 5, bitmap)], SIZE)
        assert masks.boxes.tolist() == [[5, 6, 7, 7]]
        assert masks.full(0)[5:7, 4:7].tolist() == bitmap.tolist()

    def test_empty_is_normal(self) -> None:
        for masks in (
            Masks.empty(SIZE),
            Masks.from_dense(np.zeros((0, *SIZE))),
            Masks.from_windows([], SIZE),
        ):
            assert len(masks) == 0
            assert masks.to_dense().shape == (0, *SIZE)
            assert masks.areas.shape == (0,)
            assert masks.iou(masks).shape == (0, 0)
            assert len(masks[[]]) == 0

    def test_two_masks_without_pixels_have_no_overlap(self) -> None:
        masks = Masks.from_dense(np.zeros((2, *SIZE)))
        assert masks.iou(masks).tolist() == [[0, 0], [0, 0]]

    def test_masks_of_different_images_do_not_meet(self) -> None:
        with pytest.raises(ValueError, match="different images"):
            Masks.empty((4, 4)).intersections(Masks.empty((5, 4)))

    @pytest.mark.parametrize(
        ("boxes", "bitmaps", "message"),
        [
            ([[0, 0, 2, 2]], (), "one bitmap per box"),
            ([[0, 0, 99, 2]], (np.ones((2, 99), bool),), "inside"),
            ([[-1, 0, 1, 2]], (np.ones((2, 2), bool),), "inside"),
            ([[0, 0, 2, 3]], (np.ones((2, 3), bool),), r"want a bool bitmap .*got bool \(2, 3\)"),
            ([[0, 0, 2, 2]], (np.ones((2, 2), np.uint8),), "want a bool bitmap"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, boxes: Any, bitmaps: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Masks(np.array(boxes), bitmaps, SIZE)


def test_row_indices_of_an_empty_list_are_integers() -> None:
    assert row_indices([], 3).dtype == np.int64
