"""Measure how well an encoder localises: naming of true masks, heat maps against true masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..encoders import Encoder
from ..errors import BadPrompt
from ..ranking.embedding import embed_texts, similarity
from ..scoring import heat
from ..scoring.scorers import SCORERS
from .datasets import OnProgress, Sample, reporting, silent


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
    encoder: Encoder, samples: Sequence[Sample], report: OnProgress = silent
) -> RegionReport:
    """Name every askable true mask among all names of the data set.

    Raises BadPrompt when there is none.
    """
    names = sorted({name for sample in samples for name in sample.names})
    texts = embed_texts(encoder, names, encoder.serving.templates)
    scorer = SCORERS[encoder.serving.scorer](encoder, None)
    ranks: list[int] = []
    for sample in reporting(samples, report):
        embedded = scorer.embed_regions(sample.load(), sample.masks[sample.named])
        cosine = similarity(embedded, texts)
        for row, values in zip(sample.named, cosine, strict=True):
            ranks.append(int(np.count_nonzero(values > values[names.index(sample.names[row])])))
    _check_any(ranks)
    first, fifth = (float(np.mean(np.array(ranks) < k)) for k in (1, 5))
    return RegionReport(len(ranks), len(names), (first, fifth))


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
    encoder: Encoder, samples: Sequence[Sample], report: OnProgress = silent
) -> HeatReport:
    """Compute a heat map of every askable name in each image, and compare it with the masks.

    Raises BadPrompt when there is none, and Unsupported without dense features.
    """
    hits, overlaps = [], []
    for sample in reporting(samples, report):
        texts = sorted({sample.names[row] for row in sample.named})
        image = sample.load()
        if texts:
            maps = heat.heat_maps(encoder, image, texts)
            labels = heat.label_pixels(encoder, image, texts)
            for index, name in enumerate(texts):
                truth = np.any([sample.masks.full(row) for row in sample.rows_of(name)], axis=0)
                hits.append(bool(truth.ravel()[maps[index].argmax()]))
                predicted = labels == index
                overlaps.append(float((predicted & truth).sum() / (predicted | truth).sum()))
    _check_any(hits)
    return HeatReport(len(hits), float(np.mean(hits)), float(np.mean(overlaps)))


def _check_any(measured: Sequence[object]) -> None:
    if not measured:
        raise BadPrompt("no labelled object is big enough to be queried")
