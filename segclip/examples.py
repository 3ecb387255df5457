"""Make a concept of examples: cut out and embed each, and what lies beside it in its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import images
from .concepts import MOST_OTHERS, THUMBNAIL, Concept, Example
from .encoders import Encoder
from .errors import BadPrompt
from .proposers import Proposer
from .ranking.probability import similarity
from .scoring.crops import View, cut
from .scoring.scorers import Scorer
from .types import Array, Everything, Image, Masks

_THUMBNAIL = View(1.3, "keep", 1.0)
_INSIDE = 128  # value of a mask's pixel from which it is inside


@dataclass(frozen=True, eq=False)
class Taken:
    """An example that was cut out: embedding (1, D), others (K, D), thumbnail (1, S, S, 3)."""

    example: Example
    embedding: Array
    others: Array
    thumbnail: Array


def take(example: Example, proposer: Proposer, scorer: Scorer, *, beside: bool) -> Taken:
    """Cut out and embed an example.

    beside: also embed the candidates that do not touch it, as ``others``. Raises BadImage, and
    BadPrompt where its place holds nothing.
    """
    image = images.load(example.source)
    searched = beside and not isinstance(example.place, Everything)
    drawn = isinstance(example.place, Everything | Path | np.ndarray)
    features = proposer.encode(image) if searched or not drawn else None
    if drawn:
        mask = _drawn(example, image)
    else:
        example.place.check(image.size)
        mask = proposer.decode(features, example.place).masks[:1]
    if not len(mask) or not mask.areas[0]:
        raise _nothing(example)
    embedding = scorer.embed_regions(image, mask)
    if not embedding.any():
        raise _nothing(example)
    others = np.zeros((0, embedding.shape[1]), np.float32)
    if searched:
        proposals = proposer.decode(features, Everything())
        apart = np.flatnonzero(proposals.masks.intersections(mask)[:, 0] == 0)
        found = scorer.embed_regions(image, proposals.masks[apart], proposals.quality[apart])
        others = found[found.any(axis=1)]
    return Taken(example, embedding, others, cut(image, mask, _THUMBNAIL, THUMBNAIL))


def collect(
    name: str, likes: Sequence[Taken], unlikes: Sequence[Taken], encoder: Encoder, alike: float
) -> Concept:
    """Make a concept of examples and counter-examples.

    alike: cosine with an example from which a region beside one may be another of its kind, and is
    left out of ``others``. Raises BadPrompt without examples, and for a name that is none.
    """
    if not likes:
        raise BadPrompt(f"concept {name!r} has no example; give one or more it is like")
    every = [*likes, *unlikes]
    positive = np.concatenate([taken.embedding for taken in likes])
    others = np.concatenate([taken.others for taken in every])
    nearest = similarity(others, positive).max(axis=1)
    hardest = np.argsort(-nearest, kind="stable")
    return Concept(
        name,
        positive,
        np.concatenate([positive[:0], *(taken.embedding for taken in unlikes)]),
        others[hardest[nearest[hardest] < alike][:MOST_OTHERS]],
        encoder.name,
        encoder.fingerprint,
        tuple(str(taken.example) for taken in every),
        np.concatenate([taken.thumbnail for taken in every]),
    )


def _drawn(example: Example, image: Image) -> Masks:
    """Return the mask of the whole image or of a mask's image: 1 row."""
    height, width = image.size
    if isinstance(example.place, Everything):
        return Masks.solid(np.array([[0, 0, width, height]]), image.size)
    mask = example.place
    if isinstance(mask, Path):
        mask = images.load(mask).pixels.max(axis=2) >= _INSIDE
    if mask.shape != image.size:
        raise BadPrompt(
            f"the mask of {example} is {mask.shape[0]} x {mask.shape[1]} pixels high and wide, its "
            f"image {height} x {width}; give a mask of the image's size"
        )
    return Masks.from_dense(mask[None])


def _nothing(example: Example) -> BadPrompt:
    return BadPrompt(
        f"there is nothing at the example {example}; click on an object, or mark it by a box or a "
        "mask"
    )
