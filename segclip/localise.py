"""Measure where an encoder sees what a text names: regions told apart by name, heat maps of dense features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from . import images
from .datasets import Sample
from .encoders import Encoder
from .errors import BadPrompt
from .scoring import CropScorer, DenseScorer, embed_texts, similarity
from .types import Array, Image

MIDDLE = 0.5  # of a heat map's range, from which a pixel belongs to the text


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


@dataclass(frozen=True)
class Pointed:
    """Hold how heat maps of present names fit them. pointing: share whose hottest pixel lies on the named thing.

    miou: mean IoU of the pixels hotter than the middle of the map's range with everything of that name.
    """

    asked: int
    pointing: float
    miou: float

    def table(self) -> list[tuple[str, str]]:
        """Give the figures as rows of name and value."""
        rows = [("heat maps", str(self.asked)), ("pointing game", f"{self.pointing:.4f}")]
        return [*rows, ("heat map, mean IoU", f"{self.miou:.4f}")]


def evaluate_regions(
    encoder: Encoder,
    samples: Sequence[Sample],
    scorer: CropScorer | DenseScorer | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Named:
    """Name every askable true mask, among all names of the data set; raises BadPrompt when there is none."""
    names = sorted({name for sample in samples for name in sample.names})
    texts = embed_texts(encoder, names, encoder.serving.templates)
    looks = CropScorer(encoder) if scorer is None else scorer
    ranks: list[int] = []
    for done, sample in enumerate(samples, 1):
        rows = np.flatnonzero(sample.askable & ~sample.crowd)
        embedded = looks.embed_regions(images.load(sample.path), sample.masks[rows])
        cosine = similarity(embedded, texts)
        for row, values in zip(rows, cosine, strict=True):
            ranks.append(int(np.count_nonzero(values > values[names.index(sample.names[row])])))
        tell(done, len(samples))
    if not ranks:
        raise BadPrompt("no labelled thing is big enough to be asked for")
    return Named(len(ranks), len(names), (float(np.mean(np.array(ranks) < 1)), float(np.mean(np.array(ranks) < 5))))


def heat(dense: Array, texts: Array, size: tuple[int, int]) -> Array:
    """Compare patches (h, w, D) with texts (T, D), brought to the image's ``size`` (H, W): float32 (T, H, W)."""
    cosines = (dense @ texts.T).astype(np.float32)  # (h, w, T)
    maps = (np.ascontiguousarray(cosines[..., text]) for text in range(len(texts)))
    return np.stack([cv2.resize(one, size[::-1], interpolation=cv2.INTER_LINEAR) for one in maps])


def evaluate_heat(
    encoder: Encoder,
    samples: Sequence[Sample],
    dense: Callable[[Image], Array] | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Pointed:
    """Map every name that is there. dense: what gives an image's patches, the encoder if left out.

    Raises Unsupported for an encoder without dense features.
    """
    look = encoder.encode_dense if dense is None else dense
    hits, overlaps = [], []
    for done, sample in enumerate(samples, 1):
        rows = np.flatnonzero(sample.askable & ~sample.crowd)
        asked = sorted({sample.names[row] for row in rows})
        image = images.load(sample.path)
        texts = embed_texts(encoder, asked, encoder.serving.templates)
        for name, warm in zip(asked, heat(look(image), texts, image.size) if asked else (), strict=True):
            same = [row for row, other in enumerate(sample.names) if other == name]
            truth = np.any([sample.masks.full(row) for row in same], axis=0)
            hits.append(bool(truth.ravel()[warm.argmax()]))
            hot = warm > warm.min() + MIDDLE * (warm.max() - warm.min())
            overlaps.append(float((hot & truth).sum() / max((hot | truth).sum(), 1)))
        tell(done, len(samples))
    if not hits:
        raise BadPrompt("no labelled thing is big enough to be asked for")
    return Pointed(len(hits), float(np.mean(hits)), float(np.mean(overlaps)))
