"""Position and size words: which texts are parsed, and into what."""

from __future__ import annotations

import pytest

from segclip.errors import BadPrompt
from segclip.ranking.geometry import Half, Position, Relation
from segclip.ranking.positions import Phrase, nouns, parse


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
def test_a_position_word_is_parsed(text: str, expected: Phrase) -> None:
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mug in the top right corner", Position("mug", "top right")),
        ("the mug in the bottom-left corner of the image", Position("mug", "bottom left")),
        ("mug in the upper left-hand corner", Position("mug", "top left")),
        ("mug in the left bottom corner", Position("mug", "bottom left")),
        ("the bottom-left corner mug", Position("mug", "bottom left")),
        ("a mug that is in the lower right corner", Position("a mug", "bottom right")),
        ("mug in the left corner", Position("mug", "left")),
        ("bottom-left  corner mug", Position("mug", "bottom left")),
    ],
)
def test_a_corner_chooses_one(text: str, expected: Phrase) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the cup on the left side", Half("cup", "left")),
        ("mugs in the left half", Half("mugs", "left")),
        ("mug on the left side of the image", Half("mug", "left")),
        ("mug on the left-hand side", Half("mug", "left")),
        ("mug on the right hand side of this photo", Half("mug", "right")),
        ("the cups in the upper half of the picture", Half("cups", "top")),
        ("stars in the lower part", Half("stars", "bottom")),
        ("stars which are in the top left quarter", Half("stars", "top left")),
        ("stars in the bottom-right quadrant of the image", Half("stars", "bottom right")),
        ("The Mugs At The Bottom Side", Half("Mugs", "bottom")),
    ],
)
def test_a_half_or_quarter_is_parsed(text: str, expected: Phrase) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mug on the right", Position("mug", "right")),
        ("mug at the top", Position("mug", "top")),
        ("mug near the top", Position("mug", "top")),
        ("mug near the top of the image", Position("mug", "top")),
        ("mug close to the left edge", Position("mug", "left")),
        ("mug nearest to the right edge of the image", Position("mug", "right")),
        ("mug closest to the bottom", Position("mug", "bottom")),
        ("mug closest to the centre", Position("mug", "middle")),
        ("mug along the bottom edge", Position("mug", "bottom")),
        ("mug furthest to the left", Position("mug", "left")),
        ("mug that is farthest from the left edge", Position("mug", "right")),
        ("mug furthest away from the top", Position("mug", "bottom")),
        ("the furthest left mug", Position("mug", "left")),
        ("the left-hand mug", Position("mug", "left")),
        ("mug on the far right", Position("mug", "right")),
        ("mug that is on the left", Position("mug", "left")),
        ("second mug from the left-hand side", Position("mug", "left", 2)),
    ],
)
def test_a_side_or_an_edge_chooses_one(text: str, expected: Phrase) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the biggest mug in the left half", Position("mug in the left half", "biggest")),
        ("the left mug in the top half", Position("mug in the top half", "left")),
        ("mugs above the laptop in the left half", Half("mugs above the laptop", "left")),
        ("mug near the top shelf", Relation("mug", "near", "top shelf")),
        ("mug on the left side of the desk", Relation("mug", "left", "desk")),
        ("mug near the left edge of the table", Relation("mug", "near", "left edge of the table")),
    ],
)
def test_places_combine_with_the_rest_of_the_text(text: str, expected: Phrase) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("left back pocket", Position("back pocket", "left")),  # as a camera behind it would
        ("top shelf", Position("shelf", "top")),
        ("upper bunk", Position("bunk", "top")),
        ("leftmost hand", Position("hand", "left")),
        ("left corner sofa", Position("corner sofa", "left")),
        ("the second top hat from the left", Position("top hat", "left", 2)),
        ("biggest top hat", Position("top hat", "biggest")),
        ("top hat on the left", Position("top hat", "left")),
        ("left shoe under the table", Relation("left shoe", "below", "table")),
        ("top hatch", Position("hatch", "top")),
        ("dog on the left", Position("dog", "left")),
        ("horse head to the left", Position("horse head", "left")),
    ],
)
def test_words_of_place_beside_names_are_read(text: str, expected: Phrase) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "the left side of the car",
        "right half of a lemon",
        "top left corner of the table",
        "the right edge of the book",
        "a right of way sign",
        "arrow pointing to the left",
        "a dog looking to the right",
        "a car turning towards the left",
        "mug in the corner",
        "corner sofa",
        "corner shop",
        "no left turn sign",
        "ring on the left hand",
        "half a lemon",
        "side table",
    ],
)
def test_sides_of_things_and_directions_stay_whole(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "second from the right",
        "top left",
        "bottom-left corner",
        "the bottom left corner of the image",
        "in the left half",
        "the left-hand side",
        "on the right side of the picture",
        "the top of the image",
        "middle of the photo",
    ],
)
def test_a_place_without_an_object_is_refused(text: str) -> None:
    with pytest.raises(BadPrompt, match="not what"):
        parse(text)


def test_nouns_are_the_texts_for_the_encoder() -> None:
    assert nouns("a red apple") == ("a red apple",)
    assert nouns("the second mug from the left") == ("mug",)
    assert nouns("the biggest mug left of a box under the top table") == ("mug", "a box", "table")
    assert nouns("the left mugs in the top half of the image") == ("mugs",)
    assert nouns("top hat in the bottom-right corner") == ("top hat",)
