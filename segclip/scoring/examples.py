"""Make a concept of examples: cut out and embed each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import images
from ..encoders import Encoder
from ..errors import BadPrompt
from ..proposers import Proposer
from ..ranking.concepts import THUMBNAIL, Concept, Example
from ..types import Array, Boxes, Everything, Image, Masks, Points
from .crops import View, cut
from .scorers import Scorer

_THUMBNAIL = View(1.3, "keep", 1.0)
_INSIDE = 128  # value of a mask's pixel from which it is inside

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Taken:
    """An example that was cut out: embedding (1, D), thumbnail (1, S, S, 3)."""

    example: Example
    embedding: Array
    thumbnail: Array


def take(example: Example, proposer: Proposer, scorer: Scorer) -> Taken:
    """Cut out and embed an example. Raises BadImage, and BadPrompt where its place is empty."""
    image = images.load(example.source)
    if isinstance(example.place, Points | Boxes):
        example.place.check(image.size)
        mask = proposer.decode(proposer.encode(image), example.place).masks[:1]
    else:
        mask = _drawn(example, image)
    if not len(mask) or not mask.areas[0]:
        raise _nothing(example)
    embedding = scorer.embed_regions(image, mask)
    if not embedding.any():
        raise _nothing(example)
    return Taken(example, embedding, cut(image, mask, _THUMBNAIL, THUMBNAIL))


def collect(
    name: str, likes: Sequence[Taken], unlikes: Sequence[Taken], encoder: Encoder
) -> Concept:
    """Make a concept of examples and counter-examples.

    Raises BadPrompt without examples, and for a name that is none.
    """
    if not likes:
        raise BadPrompt(f"concept {name!r} has no example; give one or more it is like")
    every = [*likes, *unlikes]
    positive = np.concatenate([taken.embedding for taken in likes])
    concept = Concept(
        name,
        positive,
        np.concatenate([positive[:0], *(taken.embedding for taken in unlikes)]),
        encoder.name,
        encoder.fingerprint,
        tuple(str(taken.example) for taken in every),
        np.concatenate([taken.thumbnail for taken in every]),
    )
    for row in np.flatnonzero(~concept.typical):
        log.warning(
            "%s is unlike the other examples and does not count; see what it cut out: segclip "
            "concepts show %s --out sheet.png",
            concept.given[row],
            name,
        )
    return concept


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
