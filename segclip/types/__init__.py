"""Core types: images, prompts, masks, proposals, regions, scores, results. NumPy only.

Frames: a size is (H, W), a coordinate is (x, y) in pixels of the upright image, a box is xyxy and
half-open (x2 and y2 are one past the last pixel). Every table of N rows is filtered by
``table[rows]``, which filters all its columns at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from . import summary
from .masks import Array, Masks, Rows, row_indices
from .prompts import Boxes, Everything, Points, Prompt

__all__ = [
    "Array",
    "Boxes",
    "Encoded",
    "Everything",
    "Image",
    "Masks",
    "Points",
    "Prompt",
    "Proposals",
    "Regions",
    "Resemblance",
    "Result",
    "Rows",
    "Scores",
    "row_indices",
]


@dataclass(frozen=True, eq=False)
class Image:
    """One upright RGB image.

    pixels: uint8 (H, W, 3), colour order RGB. source: the path or a label; exporters use its stem.
    """

    pixels: Array
    source: str = "image"

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if self.pixels.ndim != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
            raise ValueError(f"want uint8 (H, W, 3) RGB pixels, got {dtype} {shape}")

    def __repr__(self) -> str:
        return f"Image({summary.quote(self.source)}, (H, W) = {self.size})"

    @property
    def size(self) -> tuple[int, int]:
        """Return (H, W)."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True, eq=False)
class Encoded:
    """An image encoded by a proposer, so that each prompt only costs a decode.

    See ``Segmenter.encode``. features: the proposer's own, of any type. proposer: the one that made
    them and can decode them.
    """

    image: Image
    features: Any
    proposer: Any


@dataclass(frozen=True, eq=False)
class Proposals:
    """N class-agnostic candidate masks.

    quality: float32 (N,), the proposer's own confidence, in [0, 1]; SAM's predicted IoU may exceed
    it slightly. logits: float32 (N, h, w), a promptable proposer's coarse masks in its own frame,
    for ``Points.mask``; None for other proposers.
    """

    masks: Masks
    quality: Array
    logits: Array | None = None

    def __post_init__(self) -> None:
        quality = np.asarray(self.quality, np.float32).reshape(-1)
        if len(quality) != len(self.masks):
            raise ValueError(f"want one quality per mask, got {len(quality)} for {len(self.masks)}")
        if self.logits is not None and len(self.logits) != len(self.masks):
            raise ValueError(
                f"want logits for each mask, got {len(self.logits)} for {len(self.masks)}"
            )
        object.__setattr__(self, "quality", quality)

    def __repr__(self) -> str:
        headline = f"Proposals: {len(self)} of an image of (H, W) = {self.masks.size}"
        return summary.table(headline, self[: summary.ROWS].described(), len(self))

    def __len__(self) -> int:
        return len(self.masks)

    def described(self) -> dict[str, list[str]]:
        """Return columns of text for ``summary.table``."""
        return {"quality": summary.numbers(self.quality.tolist()), **self.masks.described()}

    def __getitem__(self, rows: Rows) -> Proposals:
        chosen = row_indices(rows, len(self))
        logits = None if self.logits is None else self.logits[chosen]
        return Proposals(self.masks[chosen], self.quality[chosen], logits)

    @classmethod
    def join(cls, parts: Sequence[Proposals]) -> Proposals:
        """Stack one or more tables of one image; logits are kept only if every part has them."""
        logits = [part.logits for part in parts if part.logits is not None]
        return cls(
            Masks.join([part.masks for part in parts]),
            np.concatenate([part.quality for part in parts]),
            np.concatenate(logits) if len(logits) == len(parts) else None,
        )


@dataclass(frozen=True, eq=False)
class Regions:
    """An image's proposals with one embedding each, independent of texts.

    embeddings: float32 (N, D), unit rows.
    """

    image: Image
    proposals: Proposals
    embeddings: Array

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.proposals):
            raise ValueError(
                f"want embeddings ({len(self.proposals)}, D), got {self.embeddings.shape}"
            )

    def __repr__(self) -> str:
        headline = f"Regions: {len(self)} of {self.image}, embeddings {self.embeddings.shape}"
        first = self.proposals[: summary.ROWS]
        return summary.table(headline, first.described(), len(self))

    def __len__(self) -> int:
        return len(self.proposals)

    def __getitem__(self, rows: Rows) -> Regions:
        return Regions(
            self.image, self.proposals[rows], self.embeddings[row_indices(rows, len(self))]
        )

    @classmethod
    def bare(cls, image: Image, proposals: Proposals) -> Regions:
        """Make regions without embeddings."""
        return cls(image, proposals, np.zeros((len(proposals), 0), np.float32))

    @property
    def masks(self) -> Masks:
        """Return the proposals' masks."""
        return self.proposals.masks


@dataclass(frozen=True, eq=False)
class Scores:
    """Cosine similarity of N regions with T texts.

    similarity: float32 (N, T) in [-1, 1]. texts: T. logit_scale: already exponentiated (100 for
    OpenAI's CLIP).
    """

    similarity: Array
    texts: tuple[str, ...]
    logit_scale: float

    def __post_init__(self) -> None:
        if self.similarity.ndim != 2 or self.similarity.shape[1] != len(self.texts):
            raise ValueError(f"want similarity (N, {len(self.texts)}), got {self.similarity.shape}")

    def __repr__(self) -> str:
        return (
            f"Scores: similarity {self.similarity.shape}, logit_scale {self.logit_scale:g}, "
            f"texts {summary.listing(self.texts) or 'none'}"
        )

    def __len__(self) -> int:
        return len(self.similarity)

    def probabilities(self, over: Literal["texts", "regions"]) -> Array:
        """Return softmax(logit_scale x similarity) over the named axis: float32 (N, T)."""
        axes = {"texts": 1, "regions": 0}
        if over not in axes:
            raise ValueError(f"over must be 'texts' or 'regions', got {over!r}")
        logits = self.logit_scale * self.similarity.astype(np.float64)
        logits -= (
            logits.max(axis=axes[over], keepdims=True, initial=-np.inf) if logits.size else 0.0
        )
        exponentials = np.exp(logits)
        total = exponentials.sum(axis=axes[over], keepdims=True)
        shares: Array = (exponentials / np.maximum(total, np.finfo(np.float64).tiny)).astype(
            np.float32
        )
        return shares


class Resemblance(NamedTuple):
    """The everyday name of a region that a text does not mean, and the name's probability."""

    name: str
    probability: float


@dataclass(frozen=True, eq=False)
class Result:
    """The answer to a question: R rows, possibly none, best first for each text.

    regions: R rows; a region may appear under several texts. texts: R, the text each row answers.
    similarity: float32 (R,) cosine. probability: float32 (R,), softmax over {text, negatives,
    backgrounds} of that region alone, its odds weighted by quality if the encoder's ``serving``
    sets a weight. asked: all texts of the question, including unanswered ones. threshold: minimum
    probability of a row. nearest: for each text its highest probability over all regions before
    selection (0 without regions). reasons: for each text how a position or size word chose its
    regions, "" without such a word. resembles: for each text what the region nearest to it rather
    is, None for a text with an answer or where nothing is known. A row for a point or a box is
    named so in ``texts``, and its similarity and probability are NaN.
    """

    regions: Regions
    texts: tuple[str, ...]
    similarity: Array
    probability: Array
    asked: tuple[str, ...]
    threshold: float
    nearest: tuple[float, ...] = field(default=())
    reasons: tuple[str, ...] = field(default=())
    resembles: tuple[Resemblance | None, ...] = field(default=())

    def __post_init__(self) -> None:
        rows = {len(self.regions), len(self.texts), len(self.similarity), len(self.probability)}
        if len(rows) != 1:
            raise ValueError(f"columns of different lengths: {sorted(rows)}")

    def __repr__(self) -> str:
        headline = f"Result: {len(self)} of {self.image}, threshold {self.threshold:.2f}"
        if self.unanswered:
            headline += f", nothing for {summary.listing(self.unanswered)}"
        first = self[: summary.ROWS]
        columns = {
            "text": [summary.quote(text) for text in first.texts],
            "probability": summary.numbers(first.probability.tolist()),
            "similarity": summary.numbers(first.similarity.tolist(), 3),
            **first.regions.proposals.described(),
        }
        return summary.table(headline, columns, len(self))

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: Rows) -> Result:
        chosen = row_indices(rows, len(self))
        texts = tuple(self.texts[i] for i in chosen)
        return replace(
            self,
            regions=self.regions[chosen],
            texts=texts,
            similarity=self.similarity[chosen],
            probability=self.probability[chosen],
        )

    @classmethod
    def unranked(cls, regions: Regions, probability: Array | float = np.nan) -> Result:
        """Make a result from regions without texts, for drawing or export."""
        column = np.full(len(regions), probability, np.float32)
        return cls(regions, ("",) * len(regions), column, column, (), 0.0)

    def joined(self, other: Result) -> Result:
        """Append the rows of another result for the same image; the other fields stay unchanged."""
        embeddings = np.concatenate([self.regions.embeddings, other.regions.embeddings])
        proposals = Proposals.join([self.regions.proposals, other.regions.proposals])
        return replace(
            self,
            regions=Regions(self.image, proposals, embeddings),
            texts=self.texts + other.texts,
            similarity=np.concatenate([self.similarity, other.similarity]),
            probability=np.concatenate([self.probability, other.probability]),
        )

    @property
    def image(self) -> Image:
        """Return the image of the regions."""
        return self.regions.image

    @property
    def masks(self) -> Masks:
        """Return each row's mask."""
        return self.regions.masks

    @property
    def quality(self) -> Array:
        """Return the proposer's confidence in each row: float32 (R,)."""
        return self.regions.proposals.quality

    @property
    def score(self) -> Array:
        """Return each row's probability, or its quality if it has no text: float32 (R,)."""
        return np.where(np.isnan(self.probability), self.quality, self.probability)

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Return the texts of the question that have no row."""
        return tuple(text for text in self.asked if text not in self.texts)
