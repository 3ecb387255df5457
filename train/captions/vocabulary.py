"""Collect the vocabulary of the mini text tower: nouns, attributes, phrases, captions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from .wordnet import FOLDER, ancestors, senses, synsets

PHYSICAL = 1930  # WordNet's number of "physical entity"
COLOURS = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "white",
    "grey",
    "silver",
)
ATTRIBUTES = (
    "small", "big", "tall", "old", "new", "young", "wooden", "metal", "plastic", "glass",
    "leather", "stone", "striped", "spotted", "round", "square", "open", "closed", "empty",
    "full", "broken", "wet", "dirty", "shiny", "furry", "bright", "dark", "colourful", "golden",
    "sleeping", "running", "sitting", "standing", "flying", "toy", "baby", "wild", "half", "long",
    "short",
)  # fmt: skip
RELATIONS = (
    "on",
    "next to",
    "in front of",
    "behind",
    "under",
    "with",
    "in",
    "and",
    "holding",
    "near",
    "of",
)
PLURALS = ("two", "three", "some", "several", "many", "a group of", "a pair of")


def nouns() -> tuple[list[str], list[str]]:
    """List WordNet's nouns of physical entities, and the common ones among them."""
    physical = {number for number in synsets() if PHYSICAL in ancestors(number)}
    usable = re.compile(r"[a-z][a-z' -]*[a-z]")
    words = [
        word
        for word, numbers in senses().items()
        if usable.fullmatch(word) and word.count(" ") <= 2 and physical.intersection(numbers[:3])
    ]
    counted = {line.split()[0].replace("_", " ") for line in _index() if _tagged(line) > 0}
    return words, [word for word in words if word in counted]


def _index() -> list[str]:
    return [
        line
        for line in (FOLDER / "index.noun").read_text("latin-1").splitlines()
        if not line.startswith(" ")
    ]


def _tagged(line: str) -> int:
    """Return how many of a noun's meanings occur in WordNet's tagged texts."""
    fields = line.split()
    return int(fields[-int(fields[2]) - 1])


def phrases(things: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """Generate phrases of attributes, numbers and relations around nouns."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        one, other = (str(things[int(rng.integers(len(things)))]) for _ in range(2))
        colour, attribute = (str(rng.choice(words)) for words in (COLOURS, ATTRIBUTES))
        kind = rng.random()
        if kind < 0.35:
            found.append(f"{colour} {one}")
        elif kind < 0.6:
            found.append(f"{attribute} {one}")
        elif kind < 0.7:
            found.append(f"{attribute} {colour} {one}")
        elif kind < 0.8:
            found.append(f"{rng.choice(PLURALS)} {plural(one)}")
        elif kind < 0.93:
            found.append(f"{_article(one)} {rng.choice(RELATIONS)} {_article(other)}")
        else:
            found.append(f"the {colour} {one} {rng.choice(RELATIONS)} the {other}")
    return found


def pieces(captions: Iterable[str]) -> list[str]:
    """Split captions at their connecting words; the whole captions are kept too."""
    found = []
    for caption in captions:
        parts = re.split(
            r"\b(?:and|with|while|as|in|on|by|near|at|is|are|wearing|holding)\b|[,.;]", caption
        )
        found += [caption, *(part.strip() for part in parts if len(part.split()) in range(2, 6))]
    return found


def plural(text: str) -> str:
    """Form the regular plural of a noun."""
    if text.endswith(("s", "x", "ch", "sh")):
        return text + "es"
    return text[:-1] + "ies" if text.endswith("y") and text[-2:-1] not in "aeiou" else text + "s"


def _article(text: str) -> str:
    return f"{'an' if text[:1] in 'aeiou' else 'a'} {text}"
