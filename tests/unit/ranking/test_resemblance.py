"""What a region rather is: the everyday name nearest to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from segclip.encoders import Serving
from segclip.question import Question
from segclip.ranking.resemblance import resemblances
from segclip.segmenter import Segmenter
from segclip.types import Array, Masks, Proposals, Regions
from tests.fakes import FakeEncoder, FakeProposer, paint

NAMES = {"cat": 0, "dog": 1, "car": 2}


class Named(FakeEncoder):
    """Embed texts by the animals and vehicles that they name; crops as cats, a bit like dogs."""

    def encode_texts(self, texts: Sequence[str]) -> Array:
        rows = np.zeros((len(texts), 5), np.float32)
        for row, text in enumerate(texts):
            found = [place for name, place in NAMES.items() if name in text.split()]
            rows[row, found or [3 if "background" in text else 4]] = 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_images(self, crops: Sequence[np.ndarray] | np.ndarray) -> Array:
        return np.tile(np.array([[0.9, 0.1, 0.0, 0.15, 0.0]], np.float32), (len(crops), 1))


SERVING = Serving(templates=("{}",), backgrounds=("background",), threshold=0.5, calibrated=True)


def resembled(texts: list[str], embedding: list[float]) -> list[str | None]:
    encoder = Named()
    embedded = encoder.encode_texts(texts)
    image = paint(*[("red", (row, row, row + 9, row + 9)) for row in range(len(texts))])
    masks = Masks.from_windows(
        [(row, row, np.ones((9, 9), bool)) for row in range(len(texts))], image.size
    )
    rows = np.tile(np.array(embedding, np.float32), (len(texts), 1))
    regions = Regions(image, Proposals(masks, np.ones(len(texts), np.float32)), rows)
    return [one and one.name for one in resemblances(encoder, SERVING, texts, embedded, regions)]


def test_a_region_is_named_by_what_it_is_nearest_to() -> None:
    assert resembled(["dog", "car"], [0.9, 0.4, 0, 0, 0]) == ["cat", "cat"]


@pytest.mark.parametrize("text", ["cat", "a small cat", "kitten", "animal"])
def test_a_name_that_means_the_same_says_nothing(text: str) -> None:
    assert resembled([text], [0.9, 0.0, 0, 0, 0]) == [None]


def test_a_region_that_no_name_would_find_is_not_named() -> None:
    assert resembled(["dog"], [0.1, 0.05, 0, 0.9, 0]) == [None]


def test_an_answer_says_what_its_nearest_miss_is() -> None:
    segmenter = Segmenter(FakeProposer(), Named(serving=SERVING))
    image = paint(("red", (10, 10, 60, 60)))
    result = segmenter.answer(image, Question(texts=("dog", "cat")))
    assert result.unanswered == ("dog",)
    rather, none = result.resembles
    assert none is None
    assert rather is not None
    assert rather.name == "cat"
    assert rather.probability == pytest.approx(result.probability[0], abs=1e-6)


def test_nothing_is_named_without_regions() -> None:
    segmenter = Segmenter(FakeProposer(), Named(serving=SERVING))
    result = segmenter.answer(paint(), Question(texts=("dog", "cat")))
    assert result.resembles == (None, None)


def test_texts_of_the_same_thing_are_each_explained() -> None:
    segmenter = Segmenter(FakeProposer(), Named(serving=SERVING))
    image = paint(("red", (10, 10, 60, 60)))
    result = segmenter.answer(image, Question(texts=("dog", "left dog", "the dog")))
    assert [one and one.name for one in result.resembles] == ["cat", "cat", "cat"]
