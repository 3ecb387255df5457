"""Collect the texts that crops are trained against, and those that are neutral for a class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from segclip.types import Array

from ..captions.vocabulary import plural
from ..captions.wordnet import ancestors, senses, synsets
from .crop_store import Class

# Hypernyms that are too general or not visible, such as "entity" and "artifact", are excluded.
DEPTH = 5  # minimum number of a hypernym's own hypernyms
SENSES = 2  # meanings of a word that are compared
TOO_WIDE = {
    "organism",
    "chordate",
    "vertebrate",
    "placental",
    "instrumentality",
    "device",
    "commodity",
    "consumer goods",
    "covering",
    "structure",
    "diapsid",
    "conveyance",
    "implement",
    "invertebrate",
    "arthropod",
    "equipment",
    "creation",
    "durables",
    "artifact",
    "area",
    "matter",
    "substance",
}


@dataclass(frozen=True)
class Bank:
    """Every text of every class.

    means: bool (T, C), the classes each text is right for. spared: bool (T, C), texts that are
    neither right nor wrong for a class: its hyponyms, hypernyms, and texts that share a word.
    names: (C,) row of each class's name. of: all its rows.
    """

    texts: tuple[str, ...]
    means: Array
    spared: Array
    names: Array
    of: tuple[Array, ...]

    @classmethod
    def build(cls, classes: Sequence[Class]) -> Bank:
        """Collect texts, plurals, colour phrases, and hypernyms of objects with a known meaning."""
        rows: dict[str, set[int]] = {}
        for index, kind in enumerate(classes):
            if kind.group == "caption":
                continue  # captions are learned among themselves
            for text in kind.texts:
                forms = (text, plural(text), *([f"{kind.colour} {text}"] if kind.colour else []))
                for form in forms:
                    rows.setdefault(form, set()).add(index)
            for text in kinds_of(kind):
                rows.setdefault(text, set()).add(index)
        texts = tuple(rows)
        means = np.zeros((len(texts), len(classes)), bool)
        for row, text in enumerate(texts):
            means[row, list(rows[text])] = True
        place = {text: row for row, text in enumerate(texts)}
        names = np.array([place.get(kind.texts[0], 0) for kind in classes])
        of = tuple(np.flatnonzero(means[:, index]) for index in range(len(classes)))
        return cls(texts, means, _spared(texts, classes) & ~means, names, of)

    def sample(self, rng: np.random.Generator, classes: Array) -> Array:
        """Pick one text for each of some classes, its name half the time: unique rows (C,)."""
        names = rng.random(len(classes)) < 0.5
        rows = [
            self.names[index] if name else rng.choice(self.of[index])
            for index, name in zip(classes, names, strict=True)
        ]
        return np.unique(rows)


def kinds_of(kind: Class) -> list[str]:
    """List the hypernyms of a photographed object: "dog" and "animal" for a poodle."""
    if kind.synset is None or kind.group != "imagenet":
        return []
    table = synsets()
    above = [number for number in ancestors(kind.synset) if number != kind.synset]
    words = [table[number].words[0].lower() for number in above if len(ancestors(number)) > DEPTH]
    return [word for word in words if word not in TOO_WIDE]


def _spared(texts: Sequence[str], classes: Sequence[Class]) -> Array:
    """Compare every text with every class: bool (T, C).

    True where one is a hypernym of the other or shares its noun.
    """
    rows_of: dict[int, list[int]] = defaultdict(list)  # texts that mean a synset
    rows_under: dict[int, list[int]] = defaultdict(list)  # texts that mean one of its hyponyms
    rows_ending: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        for number in _meanings(text):
            rows_of[number].append(row)
            for above in ancestors(number):
                rows_under[above].append(row)
        rows_ending[text.split()[-1]].append(row)
    spared = np.zeros((len(texts), len(classes)), bool)
    for column, kind in enumerate(classes):
        own = (
            {kind.synset} if kind.synset else set().union(*(_meanings(text) for text in kind.texts))
        )
        for number in own:
            spared[rows_under[number], column] = True
            for above in ancestors(number):
                spared[rows_of[above], column] = True
        for word in {word for text in kind.texts for word in text.split()}:
            spared[rows_ending[word], column] = True
    of_drawings = {text for kind in classes if kind.group == "drawn" for text in kind.texts}
    drawn = np.array([kind.group == "drawn" for kind in classes])
    only_drawn = np.array([text in of_drawings for text in texts])
    spared[np.ix_(only_drawn, drawn)] = False  # drawings are distinguished by their own names
    return spared


@cache
def _meanings(text: str) -> frozenset[int]:
    """Return the first meanings of a text, or of its last words."""
    table, words = senses(), text.lower().split()
    for start in range(len(words)):
        tail = " ".join(words[start:])
        for form in (tail, tail.removesuffix("s"), tail.removesuffix("es")):
            if form in table:
                return frozenset(table[form][:SENSES])
    return frozenset()
