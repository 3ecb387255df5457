"""Queries of place and size for a scene, and the object each means."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segclip.evaluation.datasets import Sample
from segclip.types import Masks
from train.release.places import PlaceQuery, queries_of


def sample(
    names: tuple[str, ...], windows: list[tuple[int, int, int]], askable: list[bool] | None = None
) -> Sample:
    masks = Masks.from_windows(
        [(x, y, np.ones((side, side), bool)) for x, y, side in windows], (200, 300)
    )
    every = np.array(askable or [True] * len(names))
    return Sample(Path("a.png"), masks, names, every, (), np.zeros(len(names), bool))


def rows_of(some: Sample) -> dict[str, int]:
    return {query.text: query.row for query in queries_of(some)}


def test_words_are_used_where_they_are_unambiguous() -> None:
    two = sample(("cup", "dog", "cup"), [(10, 50, 20), (0, 0, 10), (200, 60, 40)])
    assert rows_of(two) == {"left cup": 0, "right cup": 2, "biggest cup": 2, "smallest cup": 0}
    three = sample(("cup",) * 3, [(10, 0, 20), (100, 60, 21), (200, 120, 22)])
    assert rows_of(three) == {"left cup": 0, "right cup": 2, "top cup": 0, "bottom cup": 2}


def test_unique_and_half_hidden_objects_are_not_queried() -> None:
    assert not list(queries_of(sample(("cup", "dog"), [(10, 50, 20), (200, 0, 40)])))
    assert not list(queries_of(sample(("cup", "cup"), [(10, 50, 20), (200, 0, 40)], [True, False])))
    assert not list(
        queries_of(sample(("cup",) * 4, [(10, 50, 20), (200, 0, 40), (90, 90, 30), (150, 90, 20)]))
    )


def test_relations_are_used_where_one_of_them_holds() -> None:
    scene = sample(("cup", "dog", "cup"), [(10, 50, 20), (100, 55, 20), (200, 60, 20)])
    related = [query for query in queries_of(scene) if "dog" in query.text]
    assert related == [
        PlaceQuery("cup left of the dog", "left of", "cup", 0),
        PlaceQuery("cup right of the dog", "right of", "cup", 2),
    ]
    both = sample(("cup", "dog", "cup"), [(10, 50, 20), (250, 55, 20), (200, 60, 20)])
    assert not [query for query in queries_of(both) if "left of" in query.text]
