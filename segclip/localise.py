"""Measure how an encoder tells regions apart by their names: true masks, cut as it is served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from . import images
from .datasets import Sample
from .encoders import Encoder
from .errors import BadPrompt
from .scoring import CropScorer, embed_texts, similarity


@dataclass(frozen=True)
class Named:
    """Hold how true masks are named among all names of the data set. top: shares right at 1 and at 5."""

    regions: int
    names: int
    top: tuple[float, float]

    def table(self) -> list[tuple[str, str]]:
        """Give the figures as rows of name and value."""
        rows = [("regions", str(self.regions)), ("names", str(self.names))]
        shares = zip((1, 5), self.top, strict=True)
        return [*rows, *((f"region accuracy, top-{k}", f"{share:.4f}") for k, share in shares)]


def evaluate_regions(
    encoder: Encoder,
    samples: Sequence[Sample],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Named:
    """Name every askable true mask, among all names of the data set; raises BadPrompt when there is none."""
    names = sorted({name for sample in samples for name in sample.names})
    texts = embed_texts(encoder, names, encoder.serving.templates)
    scorer = CropScorer(encoder)
    ranks: list[int] = []
    for done, sample in enumerate(samples, 1):
        rows = np.flatnonzero(sample.askable & ~sample.crowd)
        embedded = scorer.embed_regions(images.load(sample.path), sample.masks[rows])
        cosine = similarity(embedded, texts)
        for row, values in zip(rows, cosine, strict=True):
            ranks.append(int(np.count_nonzero(values > values[names.index(sample.names[row])])))
        tell(done, len(samples))
    if not ranks:
        raise BadPrompt("no labelled thing is big enough to be asked for")
    return Named(len(ranks), len(names), (float(np.mean(np.array(ranks) < 1)), float(np.mean(np.array(ranks) < 5))))
