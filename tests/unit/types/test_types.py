from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segclip.types import (
    Array,
    Image,
    Masks,
    Proposals,
    Regions,
    Result,
    Scores,
)


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
