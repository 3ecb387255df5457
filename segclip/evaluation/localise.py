"""Measure how well an encoder localises: naming of true masks, heat maps against true masks."""

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
class RegionReport:
    """Accuracy of naming true masks among all names of the data set.

    top: top-1 and top-5 accuracy.
    """

    regions: int
    names: int
    top: tuple[float, float]

    def table(self) -> list[tuple[str, str]]:
        """Return the figures as rows of name and value."""
        rows = [("regions", str(self.regions)), ("names", str(self.names))]
        shares = zip((1, 5), self.top, strict=True)
        return [*rows, *((f"region accuracy, top-{k}", f"{share:.4f}") for k, share in shares)]


def evaluate_regions(
    encoder: Encoder,
    samples: Sequence[Sample],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> RegionReport:
    """Name every askable true mask among all names of the data set.

    Raises BadPrompt when there is none.
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
        report(done, len(samples))
    if not ranks:
        raise BadPrompt("no labelled object is big enough to be queried")
    return RegionReport(
        len(ranks),
        len(names),
        (float(np.mean(np.array(ranks) < 1)), float(np.mean(np.array(ranks) < 5))),
    )


@dataclass(frozen=True)
class HeatReport:
    """Agreement of heat maps with the objects they name.

    maps: heat maps evaluated. pointing: share of maps whose hottest pixel lies on an object of that
    name. miou: zero-shot segmentation, the mean over images and names of the IoU of the pixels
    assigned to a name with all objects of that name; the names present in an image compete with
    each other and with the encoder's backgrounds.
    """

    maps: int
    pointing: float
    miou: float

    def table(self) -> list[tuple[str, str]]:
        """Return the figures as rows of name and value."""
        rows = [("heat maps", str(self.maps)), ("pointing game", f"{self.pointing:.4f}")]
        return [*rows, ("zero-shot segmentation, mean IoU", f"{self.miou:.4f}")]


def evaluate_heat(
    encoder: Encoder,
    samples: Sequence[Sample],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> HeatReport:
    """Compute a heat map of every askable name in each image, and compare it with the masks.

    Raises BadPrompt when there is none, and Unsupported without dense features.
    """
    hits, overlaps = [], []
    for done, sample in enumerate(samples, 1):
        texts = sorted(
            {sample.names[row] for row in np.flatnonzero(sample.askable & ~sample.crowd)}
        )
        image = sample.load()
        if texts:
            maps = heat.heat_maps(encoder, image, texts)
            labels = heat.label_pixels(encoder, image, texts)
            for index, name in enumerate(texts):
                same = [row for row, other in enumerate(sample.names) if other == name]
                truth = np.any([sample.masks.full(row) for row in same], axis=0)
                hits.append(bool(truth.ravel()[maps[index].argmax()]))
                predicted = labels == index
                overlaps.append(float((predicted & truth).sum() / (predicted | truth).sum()))
        report(done, len(samples))
    if not hits:
        raise BadPrompt("no labelled object is big enough to be queried")
    return HeatReport(len(hits), float(np.mean(hits)), float(np.mean(overlaps)))
