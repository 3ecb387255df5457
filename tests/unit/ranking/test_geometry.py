"""Which masks a position, a half or a relation selects, and how that is explained."""

from __future__ import annotations

import numpy as np
import pytest

from segclip.ranking.geometry import Half, Position, Relation
from segclip.types import Masks

# left; top right and smallest; bottom and biggest
BOXES = ((10, 40, 30, 60), (80, 10, 90, 20), (50, 45, 60, 90))


def masks() -> Masks:
    boxes = np.array(BOXES)
    return Masks(
        boxes, tuple(np.ones((y2 - y1, x2 - x1), bool) for x1, y1, x2, y2 in boxes), (100, 100)
    )


@pytest.mark.parametrize(
    ("key", "order"),
    [
        ("left", [0, 2, 1]),
        ("right", [1, 2, 0]),
        ("top", [1, 0, 2]),
        ("bottom", [2, 0, 1]),
        ("biggest", [2, 0, 1]),
        ("smallest", [1, 0, 2]),
        ("middle", [2, 0, 1]),
        ("top right", [1, 2, 0]),
        ("bottom left", [0, 2, 1]),
    ],
)
def test_every_key_sorts_by_its_measure(key: str, order: list[int]) -> None:
    assert [int(Position("x", key, nth).choose(masks())[0]) for nth in (1, 2, 3)] == order


def test_too_few_give_none() -> None:
    assert Position("x", "left", 4).choose(masks()).tolist() == []
    assert Position("x", "left").choose(Masks.empty((10, 10))).tolist() == []


def test_the_reason_of_a_position_is_described() -> None:
    assert Position("mug", "left").reason(3) == "leftmost of 3 found for 'mug'"
    assert Position("mug", "left", 2).reason(3) == "second from the left of 3 found for 'mug'"
    assert Position("mug", "biggest").reason(2) == "biggest of 2 found for 'mug'"
    assert Position("mug", "top left").reason(2) == "nearest to the top left of 2 found for 'mug'"


@pytest.mark.parametrize(
    ("key", "anchor", "rows"),
    [
        ("left", 1, [0, 2]),
        ("right", 2, [1]),
        ("above", 2, [0, 1]),
        ("below", 1, [0, 2]),
        ("bigger", 0, [2]),
        ("smaller", 0, [1]),
        ("near", 0, [2]),
        ("left", 0, []),
    ],
)
def test_relations_hold_between_masks(key: str, anchor: int, rows: list[int]) -> None:
    assert Relation("mug", key, "apple").choose(masks(), masks()[[anchor]]).tolist() == rows


def test_the_likeliest_anchor_counts_or_the_nearest() -> None:
    assert Relation("mugs", "left", "apple").choose(masks(), masks()[[2, 1]]).tolist() == [0]
    near = Relation("mug", "near", "apple")
    assert near.choose(
        masks()[[1, 2]],
        Masks(
            np.array([[0, 0, 5, 5], [60, 80, 70, 95]]),
            (np.ones((5, 5), bool), np.ones((15, 10), bool)),
            (100, 100),
        ),
    ).tolist() == [1]
    assert near.choose(masks()[[1]], masks()[[1]]).tolist() == []  # no object is its own anchor
    assert near.choose(masks(), masks()[[]]).tolist() == []
    assert near.choose(masks()[[]], masks()).tolist() == []


def test_the_reason_of_a_relation_is_described() -> None:
    relation = Relation("mug", "left", "apple")
    assert not relation.plural
    assert not Relation("glass", "left", "apple").plural
    assert Relation("red mugs", "left", "apple").plural
    assert relation.reason(1, 2, 1) == "1 of 2 found for 'mug': left of 'apple'"
    assert relation.reason(0, 2, 1) == "none of 2 found for 'mug': left of 'apple'"
    assert (
        relation.reason(0, 2, 0)
        == "nothing was found for 'apple', so none of 2 found for 'mug' can be left of 'apple'"
    )
    assert (
        Relation("mug", "near", "apple").reason(1, 2, 3)
        == "1 of 2 found for 'mug': nearest to 'apple'"
    )


@pytest.mark.parametrize(
    ("key", "rows"),
    [
        ("left", [0]),
        ("right", [1, 2]),  # all of them, not the rightmost alone
        ("top", [1]),
        ("bottom", [0, 2]),  # the first has its centre on the middle line
        ("top right", [1]),
        ("bottom right", [2]),
        ("top left", []),
    ],
)
def test_a_half_keeps_every_mask_whose_centre_lies_in_it(key: str, rows: list[int]) -> None:
    assert Half("x", key).choose(masks()).tolist() == rows


def test_halves_and_quarters_cover_the_image_without_overlap() -> None:
    for halves in (
        ("left", "right"),
        ("top", "bottom"),
        ("top left", "top right", "bottom left", "bottom right"),
    ):
        rows = [row for key in halves for row in Half("x", key).choose(masks()).tolist()]
        assert sorted(rows) == [0, 1, 2]


def test_nothing_lies_in_a_half_without_masks() -> None:
    assert Half("x", "left").choose(Masks.empty((10, 10))).tolist() == []


def test_the_reason_of_a_half_is_described() -> None:
    assert Half("mug", "left").reason(2, 3) == "2 of 3 found for 'mug': in the left half"
    assert Half("mug", "top").reason(0, 3) == "none of 3 found for 'mug': in the top half"
    assert Half("mug", "top left").reason(1, 3) == "1 of 3 found for 'mug': in the top left quarter"
