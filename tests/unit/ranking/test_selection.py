from __future__ import annotations

import numpy as np
import pytest

from segclip.errors import BadPrompt
from segclip.ranking.probability import probabilities
from segclip.ranking.selection import Selection, select
from segclip.types import Masks

SIZE = (100, 100)


def boxes(*xyxy: tuple[int, int, int, int]) -> Masks:
    windows = [(x1, y1, np.ones((y2 - y1, x2 - x1), bool)) for x1, y1, x2, y2 in xyxy]
    return Masks.from_windows(windows, SIZE)


def chosen(
    probability: list[float],
    masks: Masks,
    selection: Selection | None = None,
    threshold: float = 0.5,
) -> list[int]:
    values = np.array(probability)
    return select(
        values, values, masks, selection=selection or Selection(), threshold=threshold
    ).tolist()


def row_of_boxes(count: int) -> Masks:
    return boxes(*((i * 10, 0, i * 10 + 9, 9) for i in range(count)))


def test_without_others_the_order_falls_back_on_similarity() -> None:
    similarity = np.array([0.1, 0.3, 0.2])
    certain = probabilities(similarity[:, None], np.zeros((3, 0)), 100.0)[:, 0]
    assert certain.tolist() == [1, 1, 1]
    rows = select(
        certain, similarity, row_of_boxes(3), selection=Selection(best=True), threshold=0.5
    )
    assert rows.tolist() == [1]


def test_every_region_above_the_threshold_comes_back_best_first() -> None:
    assert chosen([0.6, 0.2, 0.9, 0.55], row_of_boxes(4)) == [2, 0, 3]


def test_rows_far_below_the_best_are_dropped_without_an_explicit_threshold() -> None:
    certain, similar = [0.95, 0.55, 0.6], [0.5, 0.3, 0.29]
    assert chosen(certain, row_of_boxes(3), threshold=0.2) == [0, 2]
    assert chosen(similar, row_of_boxes(3), threshold=0.2) == [0, 1]
    assert chosen(certain, row_of_boxes(3), Selection(near_best=0), threshold=0.2) == [0, 2, 1]
    assert chosen(certain, row_of_boxes(3), Selection(threshold=0.2)) == [0, 2, 1]
    with pytest.raises(BadPrompt, match="near_best must be between 0 and 1"):
        Selection(near_best=1.5)


def test_an_explicit_threshold_overrides_the_encoders() -> None:
    assert chosen([0.6, 0.2, 0.9], row_of_boxes(3), Selection(threshold=0.8), threshold=0.1) == [2]


def test_nothing_above_the_threshold_is_an_empty_answer() -> None:
    assert chosen([0.1, 0.2], row_of_boxes(2)) == []


def test_no_masks_at_all_is_an_empty_answer() -> None:
    for selection in (Selection(), Selection(best=True), Selection(top_k=3, containment=None)):
        assert chosen([], Masks.empty(SIZE), selection) == []


def test_top_k_limits_the_rows() -> None:
    assert chosen([0.6, 0.7, 0.9], row_of_boxes(3), Selection(top_k=2)) == [2, 1]


def test_best_is_one_row_even_below_the_threshold() -> None:
    assert chosen([0.6, 0.7, 0.9], row_of_boxes(3), Selection(best=True)) == [2]
    assert chosen([0.1, 0.2, 0.05], row_of_boxes(3), Selection(best=True)) == [1]


def test_of_two_masks_of_one_object_the_better_stays() -> None:
    twins = boxes((0, 0, 20, 20), (1, 1, 21, 21), (50, 50, 60, 60))
    assert chosen([0.8, 0.9, 0.7], twins) == [1, 2]
    assert chosen([0.8, 0.9, 0.7], twins, Selection(nms=1.0, containment=None)) == [1, 0, 2]


APPLE, LEAF = (20, 20, 60, 60), (35, 20, 45, 30)


def test_a_leaf_is_dropped_when_the_apple_around_it_scores_as_well() -> None:
    assert chosen([0.9, 0.7], boxes(APPLE, LEAF)) == [0]
    assert chosen([0.90, 0.92], boxes(APPLE, LEAF)) == [0]


def test_an_apple_stays_in_a_basket_that_scores_worse() -> None:
    assert chosen([0.95, 0.6], boxes(APPLE, (0, 0, 100, 100))) == [0, 1]


def test_two_apples_in_one_mask_are_dropped_for_each_apple() -> None:
    left, right, both = (0, 0, 20, 20), (20, 0, 40, 20), (0, 0, 40, 20)
    assert chosen([0.95, 0.96, 0.97], boxes(left, right, both)) == [1, 0]


def test_two_halves_that_score_worse_do_not_replace_the_whole() -> None:
    head, legs, person = (0, 0, 20, 20), (0, 20, 20, 40), (0, 0, 20, 40)
    assert chosen([0.8, 0.7, 0.97], boxes(head, legs, person)) == [2]


def test_parts_are_kept_without_containment() -> None:
    assert chosen([0.9, 0.7], boxes(APPLE, LEAF), Selection(containment=None)) == [0, 1]


def test_regions_without_an_embedding_are_never_chosen() -> None:
    for selection in (Selection(threshold=0.0), Selection(best=True)):
        assert chosen([0.0, 0.0], row_of_boxes(2), selection) == []


@pytest.mark.parametrize(
    "options", [{"threshold": 1.2}, {"nms": -0.1}, {"containment": 2.0}, {"top_k": 0}]
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(BadPrompt, match=next(iter(options))):
        Selection(**options)  # type: ignore[arg-type]
