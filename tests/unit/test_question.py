from __future__ import annotations

import logging
from typing import Any

import pytest

from segclip.errors import BadPrompt
from segclip.question import MAX_TEXT, Question, shorten, unique
from segclip.types import Boxes, Points


def test_unique_normalises_and_logs_duplicates(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert unique(["a  red apple ", "mug", "a red apple"]) == ("a red apple", "mug")
    assert "'a red apple' was given 2 times" in caplog.text
    assert unique("apple") == ("apple",)


@pytest.mark.parametrize(
    "text",
    ["", "  ", "\udcff", "very " * 1000 + "red"],
    ids=["none", "blank", "not UTF-8", "too long"],
)
def test_a_text_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadPrompt):
        unique(["apple", text])


def test_a_text_too_long_for_any_encoder_is_cut_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert len(shorten("very " * 1000)) == MAX_TEXT
    assert "read only up to" in caplog.text
    assert shorten("  a  red apple ") == "a red apple"


CLICK, BOX = (5, 6), (1, 2, 30, 40)


@pytest.mark.parametrize(
    "parts",
    [
        {"texts": "red", "everything": True},
        {"place": Points([CLICK]), "everything": True},
        {"place": Boxes([BOX]), "everything": True},
        {"example": Points([CLICK]), "everything": True},
        {"example": Points([CLICK]), "texts": "red"},
        {"example": Points([CLICK]), "place": Points([CLICK])},
        {"texts": "red", "negatives": "red"},
        {"texts": ["red", ""]},
        {"backgrounds": [" "]},
    ],
    ids=str,
)
def test_parts_that_exclude_each_other_are_refused(parts: Any) -> None:
    with pytest.raises(BadPrompt):
        Question(**parts)


def test_texts_are_normalised_and_only_texts_and_examples_need_an_encoder() -> None:
    question = Question(["a  red apple ", "mug"], negatives="tree", backgrounds=["wall"])
    assert (question.texts, question.negatives, question.backgrounds) == (
        ("a red apple", "mug"),
        ("tree",),
        ("wall",),
    )
    assert question.needs_encoder
    assert Question(example=Points([CLICK])).needs_encoder
    assert not Question(everything=True).needs_encoder
    assert not Question(place=Boxes([BOX])).needs_encoder
