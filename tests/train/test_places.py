"""Which words of place and size are asked about a scene, and which object they mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segclip.evaluation.datasets import Sample
from segclip.types import Masks
from train.release.places import Question, questions


def sample(
    names: tuple[str, ...], windows: list[tuple[int, int, int]], askable: list[bool] | None = None
) -> Sample:
    masks = Masks.from_windows(
        [(x, y, np.ones((side, side), bool)) for x, y, side in windows], (200, 300)
    )
    every = np.array(askable or [True] * len(names))
    return Sample(Path("a.png"), masks, names, every, (), np.zeros(len(names), bool))


def asked(some: Sample) -> dict[str, int]:
    return {question.text: question.row for question in questions(some)}


def test_words_are_asked_where_it_is_plain_what_they_mean() -> None:
    two = sample(("cup", "dog", "cup"), [(10, 50, 20), (0, 0, 10), (200, 60, 40)])
    assert asked(two) == {"left cup": 0, "right cup": 2, "biggest cup": 2, "smallest cup": 0}
    three = sample(("cup",) * 3, [(10, 0, 20), (100, 60, 21), (200, 120, 22)])
    assert asked(three) == {"left cup": 0, "right cup": 2, "top cup": 0, "bottom cup": 2}


def test_one_of_a_kind_and_those_half_hidden_are_not_asked_about() -> None:
    assert not list(questions(sample(("cup", "dog"), [(10, 50, 20), (200, 0, 40)])))
    assert not list(questions(sample(("cup", "cup"), [(10, 50, 20), (200, 0, 40)], [True, False])))
    assert not list(
        questions(sample(("cup",) * 4, [(10, 50, 20), (200, 0, 40), (90, 90, 30), (150, 90, 20)]))
    )


def test_relations_are_asked_where_one_of_them_holds() -> None:
    scene = sample(("cup", "dog", "cup"), [(10, 50, 20), (100, 55, 20), (200, 60, 20)])
    related = [question for question in questions(scene) if "dog" in question.text]
    assert related == [
        Question("cup left of the dog", "left of", "cup", 0),
        Question("cup right of the dog", "right of", "cup", 2),
    ]
    both = sample(("cup", "dog", "cup"), [(10, 50, 20), (250, 55, 20), (200, 60, 20)])
    assert not [question for question in questions(both) if "left of" in question.text]
