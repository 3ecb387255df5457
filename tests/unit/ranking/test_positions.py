"""Position and size words: which texts are parsed, and which mask is selected."""

from __future__ import annotations

import numpy as np
import pytest

from segclip.errors import BadPrompt
from segclip.ranking.positions import Position, Relation, nouns, parse
from segclip.types import Masks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the left mug", Position("mug", "left")),
        ("leftmost red apple", Position("red apple", "left")),
        ("The Biggest dog", Position("dog", "biggest")),
        ("second largest dog", Position("dog", "biggest", 2)),
        ("the smallest of the dogs", Position("dogs", "smallest")),
        ("second mug from the left", Position("mug", "left", 2)),
        ("the mug, 3rd from right", Position("mug", "right", 3)),
        ("cup at the top", Position("cup", "top")),
        ("the cup on the left side", Position("cup", "left")),
        ("person in the middle", Position("person", "middle")),
        ("the lower-right star", Position("star", "bottom right")),
        ("mug in the top left", Position("mug", "top left")),
        ("biggest hand", Position("hand", "biggest")),
        ("mug on the left of the picture", Position("mug", "left")),
        ("a mug left of the apple", Relation("a mug", "left", "apple")),
        ("the mug to the right of a red apple", Relation("mug", "right", "a red apple")),
        ("Cups above the laptop", Relation("Cups", "above", "laptop")),
        ("dog that is under the table", Relation("dog", "below", "table")),
        ("a cat next to the dog", Relation("a cat", "near", "dog")),
        ("the pear bigger than the apple", Relation("pear", "bigger", "apple")),
        ("a mug left of a box under the table", Relation("a mug", "left", "a box under the table")),
        ("the biggest mug left of the apple", Position("mug left of the apple", "biggest")),
        ("a mug next to the left apple", Relation("a mug", "near", "left apple")),
    ],
)
def test_a_position_word_is_parsed(text: str, expected: Position | Relation) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a red apple",
        "top hat",
        "the right hand",
        "left shoe",
        "leftover pizza",
        "left",
        "dog",
        "under the table",
        "a well-lit underground station",
        "the thing near",
    ],
)
def test_other_texts_are_not_parsed(text: str) -> None:
    assert parse(text) is None


def test_a_position_without_an_object_is_refused() -> None:
    with pytest.raises(BadPrompt, match="not what"):
        parse("second from the right")


def test_nouns_are_the_texts_for_the_encoder() -> None:
    assert nouns("a red apple") == ("a red apple",)
    assert nouns("the second mug from the left") == ("mug",)
    assert nouns("the biggest mug left of a box under the top table") == ("mug", "a box", "table")


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
