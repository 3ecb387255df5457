"""The nouns of segclip: images, prompts, masks, proposals, regions, scores, results. NumPy only.

Frames: a size is (H, W), a coordinate is (x, y) in pixels of the upright image, a box is xyxy and
half-open (x2 and y2 are one past the last pixel). Every table of N rows is filtered by ``table[rows]``,
which filters all its columns at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from .errors import BadPrompt
from .masks import Array, Masks, Rows, row_indices

__all__ = [
    "Array",
    "Boxes",
    "Everything",
    "Image",
    "Masks",
    "Points",
    "Prompt",
    "Proposals",
    "Regions",
    "Result",
    "Rows",
    "Scores",
    "row_indices",
]


@dataclass(frozen=True, eq=False)
class Image:
    """Hold one upright RGB image.

    pixels: uint8 (H, W, 3), colour order RGB. source: the path or a label; exporters use its stem.
    """

    pixels: Array
    source: str = "image"

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if self.pixels.ndim != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
            raise ValueError(f"want uint8 (H, W, 3) RGB pixels, got {dtype} {shape}")

    @property
    def size(self) -> tuple[int, int]:
        """Give (H, W)."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True, eq=False)
class Everything:
    """Ask for every object; the prompt when none is given.

    inside: only objects that lie in one of these boxes, float32 (B, 4) xyxy pixels. without: only objects that cover
    none of these points, float32 (K, 2) pixels.
    """

    inside: Any = None
    without: Any = None

    def __post_init__(self) -> None:
        if self.inside is not None:
            object.__setattr__(self, "inside", Boxes(self.inside).xyxy)
        if self.without is not None:
            object.__setattr__(self, "without", Points(self.without).xy)

    def check(self, size: tuple[int, int]) -> None:
        """Raise BadPrompt where it leaves an image of ``size`` (H, W)."""
        if self.inside is not None:
            _boxes_inside(self.inside, size)
        if self.without is not None:
            _points_inside(self.without, size)


@dataclass(frozen=True, eq=False)
class Points:
    """Ask for ONE object by clicks, and by what else is known of it.

    xy: float32 (K, 2) pixels. labels: int32 (K,), 1 foreground, 0 background; all 1 when left out. box: float32 (4,)
    xyxy around the object. mask: float32 (h, w), a row of ``Proposals.logits``, an earlier answer to refine. With a box
    or a mask there may be no point.
    """

    xy: Any
    labels: Any = None
    box: Any = None
    mask: Any = None

    def __post_init__(self) -> None:
        alone = self.box is None and self.mask is None
        xy = _floats(self.xy, 2, "points", "(x, y) pairs such as [(620, 360)]", at_least=int(alone))
        labels = np.ones(len(xy)) if self.labels is None else np.asarray(self.labels)
        if labels.shape != (len(xy),) or not np.isin(labels, (0, 1)).all():
            raise BadPrompt(f"point labels must be one 0 or 1 for each of the {len(xy)} points, got {self.labels!r}")
        object.__setattr__(self, "xy", xy)
        object.__setattr__(self, "labels", labels.astype(np.int32))
        if self.box is not None:
            object.__setattr__(self, "box", _one_box(self.box))
        if self.mask is not None:
            object.__setattr__(self, "mask", _logits(self.mask))

    def check(self, size: tuple[int, int]) -> None:
        """Raise BadPrompt where it leaves an image of ``size`` (H, W)."""
        _points_inside(self.xy, size)
        if self.box is not None:
            _boxes_inside(self.box[None], size)


@dataclass(frozen=True, eq=False)
class Boxes:
    """Ask for one object PER box; row i of the answer is box i's.

    xyxy: float32 (B, 4) pixels, x1 < x2 and y1 < y2.
    """

    xyxy: Any

    def __post_init__(self) -> None:
        xyxy = _floats(self.xyxy, 4, "boxes", "(x1, y1, x2, y2) rows such as [(10, 20, 200, 300)]")
        bad = (xyxy[:, 2:] <= xyxy[:, :2]).any(axis=1)
        if bad.any():
            raise BadPrompt(f"a box needs x1 < x2 and y1 < y2, got {xyxy[bad][0].tolist()}")
        object.__setattr__(self, "xyxy", xyxy)

    def check(self, size: tuple[int, int]) -> None:
        """Raise BadPrompt where it leaves an image of ``size`` (H, W)."""
        _boxes_inside(self.xyxy, size)


Prompt: TypeAlias = Everything | Points | Boxes


def _floats(value: Any, width: int, noun: str, example: str, at_least: int = 1) -> Array:
    try:
        array = np.asarray(value, dtype=np.float32).reshape(-1, width)
    except (TypeError, ValueError):
        raise BadPrompt(f"{noun} must be {example}, got {value!r}") from None
    if len(array) < at_least or not np.isfinite(array).all():
        raise BadPrompt(f"{noun} must be finite and at least one: {example}; got {value!r}")
    return array


def _one_box(value: Any) -> Array:
    xyxy = Boxes(value).xyxy
    if len(xyxy) != 1:
        raise BadPrompt(f"points are about one object and take one box, got {len(xyxy)}")
    box: Array = xyxy[0]
    return box


def _logits(value: Any) -> Array:
    mask = np.asarray(value)
    if mask.ndim != 2 or 0 in mask.shape or mask.dtype.kind != "f" or not np.isfinite(mask).all():
        raise BadPrompt(f"mask must be finite logits (h, w), a row of Proposals.logits; got {mask.dtype} {mask.shape}")
    return mask.astype(np.float32)


def _points_inside(xy: Array, size: tuple[int, int]) -> None:
    height, width = size
    outside = (xy < 0).any(axis=1) | (xy >= (width, height)).any(axis=1)
    if outside.any():
        x, y = xy[outside][0].tolist()
        raise BadPrompt(
            f"point ({x:g}, {y:g}) lies outside the image; x must lie in [0, {width}) and y in [0, {height})"
        )


def _boxes_inside(xyxy: Array, size: tuple[int, int]) -> None:
    height, width = size
    outside = (xyxy < 0).any(axis=1) | (xyxy > (width, height, width, height)).any(axis=1)
    if outside.any():
        raise BadPrompt(
            f"box {xyxy[outside][0].tolist()} leaves the image; x must lie in [0, {width}] and y in [0, {height}]"
        )


@dataclass(frozen=True, eq=False)
class Proposals:
    """Hold N class-agnostic candidate masks.

    quality: float32 (N,), the proposer's own confidence, in [0, 1]; SAM's predicted IoU may leave it a little. logits:
    float32 (N, h, w), a promptable proposer's coarse answer in its own frame, for ``Points.mask``; None from others.
    """

    masks: Masks
    quality: Array
    logits: Array | None = None

    def __post_init__(self) -> None:
        quality = np.asarray(self.quality, np.float32).reshape(-1)
        if len(quality) != len(self.masks):
            raise ValueError(f"want one quality a mask, got {len(quality)} for {len(self.masks)}")
        if self.logits is not None and len(self.logits) != len(self.masks):
            raise ValueError(f"want logits for each mask, got {len(self.logits)} for {len(self.masks)}")
        object.__setattr__(self, "quality", quality)

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, rows: Rows) -> Proposals:
        chosen = row_indices(rows, len(self))
        logits = None if self.logits is None else self.logits[chosen]
        return Proposals(self.masks[chosen], self.quality[chosen], logits)


@dataclass(frozen=True, eq=False)
class Regions:
    """Hold an image's proposals with one embedding each, text-free: what any number of texts are ranked against.

    embeddings: float32 (N, D), unit rows.
    """

    image: Image
    proposals: Proposals
    embeddings: Array

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.proposals):
            raise ValueError(f"want embeddings ({len(self.proposals)}, D), got {self.embeddings.shape}")

    def __len__(self) -> int:
        return len(self.proposals)

    def __getitem__(self, rows: Rows) -> Regions:
        return Regions(self.image, self.proposals[rows], self.embeddings[row_indices(rows, len(self))])

    @property
    def masks(self) -> Masks:
        """Give the proposals' masks."""
        return self.proposals.masks


@dataclass(frozen=True, eq=False)
class Scores:
    """Hold the cosine of N regions with T texts.

    similarity: float32 (N, T) in [-1, 1]. texts: T. logit_scale: already exponentiated (100 for OpenAI's CLIP).
    """

    similarity: Array
    texts: tuple[str, ...]
    logit_scale: float

    def __post_init__(self) -> None:
        if self.similarity.ndim != 2 or self.similarity.shape[1] != len(self.texts):
            raise ValueError(f"want similarity (N, {len(self.texts)}), got {self.similarity.shape}")

    def __len__(self) -> int:
        return len(self.similarity)

    def probabilities(self, over: Literal["texts", "regions"]) -> Array:
        """Give softmax(logit_scale x similarity) over the named axis: float32 (N, T)."""
        axes = {"texts": 1, "regions": 0}
        if over not in axes:
            raise ValueError(f"over must be 'texts' or 'regions', got {over!r}")
        logits = self.logit_scale * self.similarity.astype(np.float64)
        logits -= logits.max(axis=axes[over], keepdims=True, initial=-np.inf) if logits.size else 0.0
        exponentials = np.exp(logits)
        total = exponentials.sum(axis=axes[over], keepdims=True)
        return (exponentials / np.maximum(total, np.finfo(np.float64).tiny)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Result:
    """Hold the answer: R rows, best first for each text, maybe none.

    regions: R rows, a region may stand under several texts. texts: R, the text each row answers.
    similarity: float32 (R,) cosine. probability: float32 (R,), softmax over {text, negatives, backgrounds} of that
    region alone, its odds weighted by quality where the encoder's ``serving`` says so. asked: every text asked, so that
    an unanswered one is known. threshold: what a row had to reach. nearest: for each asked text its highest probability
    over all regions before selection (0 when there were none).
    """

    regions: Regions
    texts: tuple[str, ...]
    similarity: Array
    probability: Array
    asked: tuple[str, ...]
    threshold: float
    nearest: tuple[float, ...] = field(default=())

    def __post_init__(self) -> None:
        rows = {len(self.regions), len(self.texts), len(self.similarity), len(self.probability)}
        if len(rows) != 1:
            raise ValueError(f"columns of different lengths: {sorted(rows)}")

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: Rows) -> Result:
        chosen = row_indices(rows, len(self))
        texts = tuple(self.texts[i] for i in chosen)
        columns = (self.regions[chosen], texts, self.similarity[chosen], self.probability[chosen])
        return Result(*columns, self.asked, self.threshold, self.nearest)

    @property
    def image(self) -> Image:
        """Give the image the regions were cut from."""
        return self.regions.image

    @property
    def masks(self) -> Masks:
        """Give each row's mask."""
        return self.regions.masks

    @property
    def quality(self) -> Array:
        """Give the proposer's confidence in each row: float32 (R,)."""
        return self.regions.proposals.quality

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Give the texts asked for which no row stands."""
        return tuple(text for text in self.asked if text not in self.texts)
