"""Words of place and size: what is understood, what is left alone, and which mask is meant."""

from __future__ import annotations

import numpy as np
import pytest

from segclip.errors import BadPrompt
from segclip.positions import Position, parse
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
    ],
)
def test_a_word_of_place_is_taken_off(text: str, expected: Position) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a red apple",
        "top hat",
        "the right hand",
        "left shoe",
        "a mug left of the apple",
        "leftover pizza",
        "left",
        "dog",
    ],
)
def test_other_texts_are_let_be(text: str) -> None:
    assert parse(text) is None


def test_where_without_what_is_refused() -> None:
    with pytest.raises(BadPrompt, match="not what"):
        parse("second from the right")


BOXES = ((10, 40, 30, 60), (80, 10, 90, 20), (50, 45, 60, 90))  # left; top right and smallest; bottom and biggest


def masks() -> Masks:
    boxes = np.array(BOXES)
    return Masks(boxes, tuple(np.ones((y2 - y1, x2 - x1), bool) for x1, y1, x2, y2 in boxes), (100, 100))


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


def test_the_reason_is_said_in_words() -> None:
    assert Position("mug", "left").reason(3) == "leftmost of 3 found for 'mug'"
    assert Position("mug", "left", 2).reason(3) == "second from the left of 3 found for 'mug'"
    assert Position("mug", "biggest").reason(2) == "biggest of 2 found for 'mug'"
    assert Position("mug", "top left").reason(2) == "nearest to the top left of 2 found for 'mug'"
