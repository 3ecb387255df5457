"""Regions chosen for a text by their scores and by words of place."""

from __future__ import annotations

import numpy as np
import pytest

from segclip.ranking.phrases import ScoredRegions
from segclip.ranking.selection import Selection
from segclip.types import Masks

# two mugs, left and right, and a lamp between them
MASKS = Masks.solid(np.array([[0, 0, 10, 10], [40, 0, 50, 10], [20, 0, 30, 10]]), (20, 60))
SCORES = np.array([[0.8, 0.1], [0.9, 0.1], [0.1, 0.7]])


def scored(selection: Selection = Selection(), threshold: float = 0.5) -> ScoredRegions:
    return ScoredRegions(("mug", "lamp"), SCORES, SCORES, MASKS, selection, threshold)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("mug", [1, 0]),
        ("lamp", [2]),
        ("the left mug", [0]),
        ("the right mug", [1]),
        ("the mug left of the lamp", [0]),
        ("the lamp left of the mug", [2]),  # left of one of the mugs
        ("mug in the top half", [1, 0]),  # all of them, most probable first
        ("mug in the left half", [0]),
        ("the left mug in the top half", [0]),
        ("mug in the bottom half", []),
        ("mug in the top-right corner", [1]),
    ],
)
def test_words_of_place_filter_the_matches(text: str, rows: list[int]) -> None:
    assert scored().answer(text).rows.tolist() == rows


def test_a_reason_is_given_for_words_of_place_only() -> None:
    assert scored().answer("mug").reason == ""
    assert "2" in scored().answer("the left mug").reason


def test_the_best_is_chosen_below_the_threshold_too() -> None:
    strict = scored(threshold=0.95)
    assert strict.answer("mug").rows.tolist() == []
    best = scored(Selection(best=True), threshold=0.95)
    assert best.answer("mug").rows.tolist() == [1]
    assert best.answer("the left mug").rows.tolist() == [1]  # the only match that is left


def test_of_a_half_the_best_or_the_first_few_are_kept_where_that_is_asked_for() -> None:
    assert scored(Selection(best=True)).answer("mug in the top half").rows.tolist() == [1]
    assert scored(Selection(top_k=1)).answer("mug in the top half").rows.tolist() == [1]
    answer = scored().answer("mug in the left half")
    assert answer.reason == "1 of 2 found for 'mug': in the left half"
