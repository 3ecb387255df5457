"""Everyday names that a text competes with, besides its negatives and backgrounds.

CLIP has no word for "none of these": for a photograph of a cat "a dog" is nearer than "texture"
is, and wins. Here it has to win against "cat" as well. Names that mean the same, its kinds and
what it is a kind of do not compete: they are right, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

import numpy as np

from ..types import Array

_FILE = "vocabulary.txt"
_INDENT = 2  # spaces a kind is indented by
_NEAR = 3.5  # standard deviations above the mean: as similar as this, a name means about the same


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A tree of names.

    names: one of each of V entries. above: the rows each is a kind of, itself included. rows: of
    the entries that a word, in the singular, names.
    """

    names: tuple[str, ...]
    above: tuple[frozenset[int], ...]
    rows: dict[str, frozenset[int]]

    @classmethod
    def parse(cls, text: str) -> Vocabulary:
        """Read the tree: names indented under what they are a kind of, synonyms on one line."""
        names: list[str] = []
        above: list[frozenset[int]] = []
        rows: dict[str, frozenset[int]] = {}
        path: list[int] = []
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        for line in lines:
            del path[(len(line) - len(line.lstrip())) // _INDENT :]
            if line.endswith(":"):
                path.append(-1)
                continue
            words = [" ".join(word.split()) for word in line.split(",")]
            path.append(len(names))
            for word in words:
                key = _singular(word)
                rows[key] = rows.get(key, frozenset()) | {len(names)}
            names.append(words[0])
            above.append(frozenset(row for row in path if row >= 0))
        return cls(tuple(names), tuple(above), rows)

    def competing(self, text: str, similarity: Array) -> Array:
        """Return which names compete with a text: bool (V,).

        similarity: (V,), the cosine of each name with the text. It rules out the names next to a
        text that is not in the tree.
        """
        words = _singular(text.lower()).split()
        own = self._named(words)
        if own:
            kin = np.array([not own.isdisjoint(above) for above in self.above], bool)
            kin[sorted(frozenset().union(*(self.above[row] for row in own)))] = True
        else:
            kin = similarity > similarity.mean() + _NEAR * similarity.std()
        mentioned = np.array([name <= set(words) for name in self._words], bool)
        competing: Array = ~(kin | mentioned)
        return competing

    def _named(self, words: list[str]) -> frozenset[int]:
        """Return the entries that the last words of a text name, as many of them as are known."""
        tails = [" ".join(words[start:]) for start in range(len(words))]
        return next((self.rows[tail] for tail in tails if tail in self.rows), frozenset())

    @cached_property
    def _words(self) -> tuple[set[str], ...]:
        return tuple(set(_singular(name).split()) for name in self.names)


def _singular(text: str) -> str:
    """Put each word into about the singular: that of a plural is that of its singular."""
    return " ".join(_singular_word(word) for word in re.findall(r"[\w'-]+", text))


def _singular_word(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "sses", "xes", "oes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


@cache
def everyday() -> Vocabulary:
    """Return the vocabulary that ships."""
    return Vocabulary.parse(files(__package__).joinpath(_FILE).read_text("utf-8"))
