"""Everyday names: which of them compete with a text."""

from __future__ import annotations

import numpy as np
import pytest

from segclip.ranking.vocabulary import Vocabulary, everyday

TREE = """# a comment
animal
  dog, puppy
    poodle
  cat, kitten
  bat animal
vehicle:
  car
    sports car
kitchenware:
  knife, knives
  glass
    wine glass
drink
  wine
"""


def competing(text: str, tree: Vocabulary | None = None) -> set[str]:
    tree = tree or Vocabulary.parse(TREE)
    kept = tree.competing(text, np.zeros(len(tree.names)))
    return {name for name, competes in zip(tree.names, kept, strict=True) if competes}


def test_names_are_the_first_of_each_line_without_headings() -> None:
    assert Vocabulary.parse(TREE).names == (
        "animal", "dog", "poodle", "cat", "bat animal", "car", "sports car", "knife", "glass",
        "wine glass", "drink", "wine",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kin"),
    [
        ("dog", {"animal", "dog", "poodle"}),
        ("a small puppy", {"animal", "dog", "poodle"}),
        ("puppies", {"animal", "dog", "poodle"}),
        ("poodle", {"animal", "dog", "poodle"}),
        ("Animals", {"animal", "dog", "poodle", "cat", "bat animal"}),
        ("a red sports car", {"car", "sports car"}),
        ("knives", {"knife"}),
        ("wine glasses", {"glass", "wine glass", "wine"}),
        ("a cat beside a car", {"car", "sports car", "cat"}),  # what it mentions, too
    ],
)
def test_kinds_synonyms_and_names_in_the_text_do_not_compete(text: str, kin: set[str]) -> None:
    assert set(Vocabulary.parse(TREE).names) - competing(text) == kin


def test_a_text_outside_the_tree_spares_the_names_that_mean_about_the_same() -> None:
    tree = Vocabulary.parse("\n".join(f"thing{row}" for row in range(100)))
    similarity = np.full(100, 0.5)
    similarity[7] = 0.9
    kept = tree.competing("spaniel", similarity)
    assert np.flatnonzero(~kept).tolist() == [7]


def test_a_text_in_the_tree_competes_with_names_near_it() -> None:
    tree = Vocabulary.parse(TREE)
    similarity = np.zeros(len(tree.names))
    similarity[tree.names.index("cat")] = 1.0  # to an encoder a cat is nearly a dog
    assert tree.competing("dog", similarity)[tree.names.index("cat")]


def test_the_vocabulary_that_ships_names_each_thing_once() -> None:
    names = everyday().names
    assert len(names) > 700
    assert len(set(names)) == len(names)
    assert {"dog", "cup", "person", "car"} <= set(names)
    assert "kitchenware" not in names
    assert {"men", "children"}.isdisjoint(competing("people", everyday()))
    assert "dog" in competing("a cat", everyday())
    assert "woman" not in competing("people", everyday())
