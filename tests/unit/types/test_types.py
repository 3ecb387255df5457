from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segclip.errors import BadPrompt
from segclip.types import (
    Array,
    Boxes,
    Image,
    Masks,
    Points,
    Proposals,
    Regions,
    Result,
    Scores,
    row_indices,
)

SIZE = (9, 13)


def random_dense(count: int, seed: int, share: float = 0.3) -> Array:
    return np.random.default_rng(seed).random((count, *SIZE)) < share


def make_regions(count: int) -> Regions:
    """Make rows whose every column encodes the row's number."""
    dense = np.zeros((count, 20, 30), bool)
    for row in range(count):
        dense[row, row : row + 2, row] = True
    proposals = Proposals(Masks.from_dense(dense, (20, 30)), np.arange(count) / 100)
    return Regions(
        Image(np.zeros((20, 30, 3), np.uint8)),
        proposals,
        np.arange(count, dtype=np.float32)[:, None],
    )


def make_result(count: int) -> Result:
    numbers = np.arange(count, dtype=np.float32)
    texts = tuple(f"text {row}" for row in range(count))
    return Result(
        make_regions(count), texts, numbers / 10, numbers / 20, (*texts, "absent"), 0.5, (0.0,)
    )


def assert_rows(result: Result, rows: list[int]) -> None:
    assert result.texts == tuple(f"text {row}" for row in rows)
    assert result.masks.boxes[:, 0].tolist() == rows
    assert [bitmap.shape for bitmap in result.masks.bitmaps] == [(2, 1)] * len(rows)
    assert np.allclose(result.similarity, np.array(rows) / 10)
    assert np.allclose(result.probability, np.array(rows) / 20)
    assert np.allclose(result.quality, np.array(rows) / 100)
    assert result.regions.embeddings[:, 0].tolist() == rows


class TestImage:
    def test_size_is_height_width(self) -> None:
        assert Image(np.zeros((2, 3, 3), np.uint8)).size == (2, 3)

    @pytest.mark.parametrize(
        "pixels",
        [
            np.zeros((2, 3)),
            np.zeros((2, 3, 3)),
            np.zeros((2, 3, 4), np.uint8),
            np.zeros((0, 3, 3), np.uint8),
        ],
    )
    def test_anything_but_rgb_bytes_is_refused(self, pixels: Array) -> None:
        with pytest.raises(ValueError, match=r"want uint8 \(H, W, 3\) RGB pixels, got"):
            Image(pixels)


class TestPoints:
    def test_labels_are_foreground_when_left_out(self) -> None:
        points = Points([(1, 2), (3, 4)])
        assert points.xy.dtype == np.float32
        assert points.labels.tolist() == [1, 1]

    def test_one_pair_is_one_point(self) -> None:
        assert Points((620, 360)).xy.shape == (1, 2)

    @pytest.mark.parametrize(
        "xy", [[], [(1,)], [(1, 2, 3)], "here", [(1, np.nan)], None, [(1, 2), (3,)]]
    )
    def test_bad_points(self, xy: Any) -> None:
        with pytest.raises(BadPrompt, match=r"points must be .*\(x, y\) pairs"):
            Points(xy)

    @pytest.mark.parametrize("labels", [[1], [1, 2], [0.5, 1], "ab", [[1, 0]]])
    def test_bad_labels(self, labels: Any) -> None:
        with pytest.raises(BadPrompt, match="one 0 or 1 for each of the 2 points"):
            Points([(1, 2), (3, 4)], labels)


class TestBoxes:
    def test_one_box_is_one_row(self) -> None:
        assert Boxes((1, 2, 3, 4)).xyxy.tolist() == [[1, 2, 3, 4]]

    @pytest.mark.parametrize("box", [(3, 0, 3, 5), (5, 0, 3, 5), (0, 5, 3, 5), (0, 6, 3, 5)])
    def test_a_box_needs_an_inside(self, box: Any) -> None:
        with pytest.raises(BadPrompt, match="x1 < x2 and y1 < y2"):
            Boxes([(0, 0, 1, 1), box])

    @pytest.mark.parametrize("xyxy", [[], (1, 2, 3), [(1, 2, 3, np.inf)], "box"])
    def test_bad_boxes(self, xyxy: Any) -> None:
        with pytest.raises(BadPrompt, match="boxes must be"):
            Boxes(xyxy)


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


class TestRows:
    @pytest.mark.parametrize(
        ("rows", "want"),
        [
            ([2, 0], [2, 0]),
            ([], []),
            (slice(1, None), [1, 2, 3, 4]),
            (slice(None, None, -2), [4, 2, 0]),
            (np.array([True, False, False, True, False]), [0, 3]),
            (np.array([False] * 5), []),
            (np.array([4, 4]), [4, 4]),
            ((np.int64(3),), [3]),
            ([-1], [4]),
        ],
    )
    def test_rows_filter_every_column(self, rows: Any, want: list[int]) -> None:
        assert_rows(make_result(5)[rows], want)

    def test_the_rest_is_kept(self) -> None:
        result = make_result(3)[[1]]
        assert result.asked == ("text 0", "text 1", "text 2", "absent")
        assert result.unanswered == ("text 0", "text 2", "absent")
        assert (result.threshold, result.nearest) == (0.5, (0.0,))

    @pytest.mark.parametrize("rows", [[5], np.array([True, False])])
    def test_rows_that_are_not_there(self, rows: Any) -> None:
        with pytest.raises(IndexError):
            make_result(5)[rows]

    def test_row_indices_of_an_empty_list_are_integers(self) -> None:
        assert row_indices([], 3).dtype == np.int64


@pytest.mark.parametrize(
    ("dropped", "best_of_kept", "truth"), [([0, 1], 0, 2), ([0, 1, 2], 1, 4), ([1, 3], 2, 4)]
)
def test_w2_the_best_of_the_kept_rows_is_the_same_row_of_the_whole(
    dropped: list[int], best_of_kept: int, truth: int
) -> None:
    """W2: FastSAM mapped filtered rows back wrongly; here a row carries its columns."""
    whole = make_result(5)
    kept = whole[np.setdiff1d(np.arange(5), dropped)]
    assert_rows(kept[[best_of_kept]], [truth])


class TestScores:
    SCORES = Scores(np.array([[0.3, 0.2], [0.1, 0.25], [0.2, 0.2]], np.float32), ("a", "b"), 100.0)

    def test_probabilities_name_their_axis(self) -> None:
        over_texts, over_regions = (
            self.SCORES.probabilities("texts"),
            self.SCORES.probabilities("regions"),
        )
        assert np.allclose(over_texts.sum(axis=1), 1)
        assert np.allclose(over_regions.sum(axis=0), 1)
        assert over_texts[2].tolist() == [0.5, 0.5]
        assert over_texts[0, 0] == pytest.approx(1 / (1 + np.exp(-10)))

    def test_an_unknown_axis(self) -> None:
        with pytest.raises(ValueError, match="'texts' or 'regions', got 'rows'"):
            self.SCORES.probabilities("rows")  # type: ignore[arg-type]

    @pytest.mark.parametrize("shape", [(0, 2), (3, 0), (0, 0)])
    @pytest.mark.parametrize("over", ["texts", "regions"])
    def test_empty(self, shape: tuple[int, int], over: Any) -> None:
        scores = Scores(np.zeros(shape, np.float32), ("a", "b")[: shape[1]], 100.0)
        assert scores.probabilities(over).shape == shape

    def test_a_column_a_text(self) -> None:
        with pytest.raises(ValueError, match=r"want similarity \(N, 1\)"):
            Scores(np.zeros((2, 3), np.float32), ("a",), 1.0)


class TestColumns:
    def test_lengths_must_agree(self) -> None:
        regions = make_regions(2)
        with pytest.raises(ValueError, match="one quality per mask"):
            Proposals(regions.masks, np.ones(3))
        with pytest.raises(ValueError, match=r"want embeddings \(2, D\)"):
            Regions(regions.image, regions.proposals, np.zeros((3, 4), np.float32))
        with pytest.raises(ValueError, match="columns of different lengths"):
            Result(regions, ("a",), np.zeros(2), np.zeros(2), ("a",), 0.5)

    def test_zero_rows_are_a_result(self) -> None:
        result = make_result(0)
        assert len(result) == len(result.regions) == len(result.masks) == len(result.quality) == 0
        assert result.unanswered == ("absent",)
