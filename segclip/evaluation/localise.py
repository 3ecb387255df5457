"""Measure where an encoder sees what a text names: true masks told apart by name, heat maps laid
over them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..encoders import Encoder
from ..errors import BadPrompt
from ..ranking.probability import embed_texts, similarity
from ..scoring import heat
from ..scoring.scorers import SCORERS
from .datasets import Sample


@dataclass(frozen=True)
class Named:
    """Hold how true masks are named among all names of the data set. top: shares right at 1 and at
    5.
    """

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
    """Name every askable true mask, among all names of the data set; raises BadPrompt when there is
    none.
    """
    names = sorted({name for sample in samples for name in sample.names})
    texts = embed_texts(encoder, names, encoder.serving.templates)
    scorer = SCORERS[encoder.serving.scorer](encoder, None)
    ranks: list[int] = []
    for done, sample in enumerate(samples, 1):
        rows = np.flatnonzero(sample.askable & ~sample.crowd)
        embedded = scorer.embed_regions(sample.load(), sample.masks[rows])
        cosine = similarity(embedded, texts)
        for row, values in zip(rows, cosine, strict=True):
            ranks.append(int(np.count_nonzero(values > values[names.index(sample.names[row])])))
        tell(done, len(samples))
    if not ranks:
        raise BadPrompt("no labelled thing is big enough to be asked for")
    return Named(
        len(ranks),
        len(names),
        (float(np.mean(np.array(ranks) < 1)), float(np.mean(np.array(ranks) < 5))),
    )


@dataclass(frozen=True)
class Pointed:
    """Hold how heat maps fit what is named. pointing: share whose hottest pixel lies on a thing of
    that name.

    miou: of zero-shot segmentation, the mean over images and names of the IoU of the pixels given
    to a name with all things of that name; names that are there compete with each other and with
    the encoder's backgrounds.
    """

    asked: int
    pointing: float
    miou: float

    def table(self) -> list[tuple[str, str]]:
        """Give the figures as rows of name and value."""
        rows = [("heat maps", str(self.asked)), ("pointing game", f"{self.pointing:.4f}")]
        return [*rows, ("zero-shot segmentation, mean IoU", f"{self.miou:.4f}")]


def evaluate_heat(
    encoder: Encoder,
    samples: Sequence[Sample],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Pointed:
    """Map every askable name that is there; raises BadPrompt when there is none, Unsupported
    without dense features.
    """
    hits, overlaps = [], []
    for done, sample in enumerate(samples, 1):
        asked = sorted(
            {sample.names[row] for row in np.flatnonzero(sample.askable & ~sample.crowd)}
        )
        image = sample.load()
        if asked:
            maps, shown = (
                heat.heat_maps(encoder, image, asked),
                heat.label_pixels(encoder, image, asked),
            )
            for place, name in enumerate(asked):
                same = [row for row, other in enumerate(sample.names) if other == name]
                truth = np.any([sample.masks.full(row) for row in same], axis=0)
                hits.append(bool(truth.ravel()[maps[place].argmax()]))
                given = shown == place
                overlaps.append(float((given & truth).sum() / (given | truth).sum()))
        tell(done, len(samples))
    if not hits:
        raise BadPrompt("no labelled thing is big enough to be asked for")
    return Pointed(len(hits), float(np.mean(hits)), float(np.mean(overlaps)))
