"""Names of things that begin with a position word stay whole; other texts do not."""

from __future__ import annotations

import pytest

from segclip.ranking.compounds import NAMES, is_direction, is_name
from segclip.ranking.positions import parse

WHOLE = [
    "upper jaw",
    "lower lip",
    "lower lips",
    "right arrow",
    "left arrows",
    "left arrow key",
    "left turn sign",
    "the left turn signs",
    "lower case letter",
    "upper case",
    "lower back pain",
    "top hat",
    "top hats",
    "the top hat",
    "Top Hat",
    "bottom bracket",
    "bottom brackets",
    "right wing",
    "left winger",
    "left back",
    "top gun poster",
    "center console",
    "centre console",
    "center piece",
    "central heating",
    "middle finger",
    "middle ear",
    "left luggage office",
    "right angle",
    "right triangle",
    "right anger bubble",
    "right whale",
    "right-hand drive car",
    "left hand",
    "the right hands",
    "left foot",
    "right feet",
    "left knee",
    "left facing horse",
    "left square bracket",
    "left over pizza",
    "second right turn sign",
]


@pytest.mark.parametrize("text", WHOLE)
def test_the_name_of_a_thing_stays_whole(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("word", NAMES)
def test_every_name_is_recognised_alone_in_the_plural_and_before_more_words(word: str) -> None:
    for name in NAMES[word].split(", "):
        for rest in (name, f"{name}s", f"{name} model", name.upper()):
            assert is_name(word.upper(), rest), f"{word} {rest}"
        assert not is_name(word, f"{name}xyz"), f"{word} {name}xyz"


@pytest.mark.parametrize(
    ("word", "rest"),
    [
        ("left", "mug"),
        ("left", "handle"),
        ("left", "back pocket"),
        ("leftmost", "hand"),
        ("top", "shelf"),
        ("upper", "shelf"),
        ("top", "hatstand"),
        ("middle", "mug"),
        ("biggest", "hand"),
        ("", ""),
    ],
)
def test_other_words_are_positions(word: str, rest: str) -> None:
    assert not is_name(word, rest)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("an arrow pointing", True),
        ("dog looking", True),
        ("a head turned", True),
        ("dog", False),
        ("horse head", False),
        ("walking stick", False),
        ("building", False),
        ("", False),
    ],
)
def test_directions_end_in_a_verb(head: str, expected: bool) -> None:
    assert is_direction(head) is expected
