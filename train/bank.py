"""Hold every text of every class that crops are trained against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segclip.types import Array

from .region_crops import Class


@dataclass(frozen=True)
class Bank:
    """Hold every text of every class.

    means: bool (T, C), the classes each text is right for. names: (C,) row of each class's name. of: all its rows.
    """

    texts: tuple[str, ...]
    means: Array
    names: Array
    of: tuple[Array, ...]

    @classmethod
    def build(cls, classes: Sequence[Class]) -> Bank:
        """Collect texts, plurals and colour phrases."""
        rows: dict[str, set[int]] = {}
        for index, kind in enumerate(classes):
            for text in kind.texts:
                for said in (text, _plural(text), *([f"{kind.colour} {text}"] if kind.colour else [])):
                    rows.setdefault(said, set()).add(index)
        texts = tuple(rows)
        means = np.zeros((len(texts), len(classes)), bool)
        for row, text in enumerate(texts):
            means[row, list(rows[text])] = True
        names = np.array([texts.index(kind.texts[0]) for kind in classes])
        return cls(texts, means, names, tuple(np.flatnonzero(means[:, index]) for index in range(len(classes))))

    def sample(self, rng: np.random.Generator, classes: Array) -> Array:
        """Pick one text for each of some classes, its name half the time: rows (C,), each once."""
        names = rng.random(len(classes)) < 0.5
        rows = [
            self.names[index] if name else rng.choice(self.of[index])
            for index, name in zip(classes, names, strict=True)
        ]
        return np.unique(rows)


def _plural(text: str) -> str:
    if text.endswith(("s", "x", "ch", "sh")):
        return text + "es"
    return text[:-1] + "ies" if text.endswith("y") and text[-2:-1] not in "aeiou" else text + "s"
