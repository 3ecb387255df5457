"""Embed a text or image query, and rank its nearest neighbours like regions of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import images
from ..encoders import Encoder
from ..errors import BadPrompt
from ..question import Question, shorten
from ..ranking import templates
from ..ranking.probability import embed_texts, logit_scale_of, probabilities, unit, weigh
from ..types import Array
from .store import Vectors


@dataclass(frozen=True)
class Query:
    """A search query.

    text: "" for none. image: an example image, with or without a text. negatives: candidates that
    match one of these texts better are left out. templates: name of a set of text templates; None
    takes the encoder's own.
    """

    text: str = ""
    image: images.Source | None = None
    negatives: tuple[str, ...] = ()
    templates: str | None = None


@dataclass(frozen=True, eq=False)
class Embedded:
    """A query's embeddings.

    vector: float32 (D,), unit; its nearest neighbours are the candidates. text: (D,), or None for
    an image alone. negatives, backgrounds: (K, D), what a text competes with.
    """

    vector: Array
    text: Array | None
    negatives: Array
    backgrounds: Array
    logit_scale: float
    quality_weight: float


def embed(encoder: Encoder, query: Query) -> Embedded:
    """Embed a query. Raises BadPrompt without text and image or for a bad text, and BadImage."""
    if not query.text.strip() and query.image is None:
        raise BadPrompt(
            "no text or image was given to search for; give a text, for example 'a red umbrella', "
            "or an image"
        )
    words = [shorten(query.text)] if query.text.strip() else ()
    question = Question(words, negatives=[shorten(text) for text in query.negatives])
    texts, negatives = question.texts, question.negatives
    backgrounds = [text for text in encoder.serving.backgrounds if text not in texts]
    sentences = templates.get(query.templates) if query.templates else encoder.serving.templates
    rows = embed_texts(encoder, [*texts, *negatives, *backgrounds], sentences)
    first, second = len(texts), len(texts) + len(negatives)
    parts = [rows[:first]]
    if query.image is not None:
        parts.append(encoder.encode_images([images.load(query.image).pixels]))
    return Embedded(
        unit(np.concatenate(parts).mean(axis=0)),
        rows[0] if texts else None,
        rows[first:second],
        rows[second:],
        logit_scale_of(encoder, encoder.serving),
        encoder.serving.quality_weight,
    )


def rank(
    query: Embedded, found: Vectors, *, by: str = "probability"
) -> tuple[Vectors, Array, Array]:
    """Sort candidates, best first, and drop those that match a negative better.

    by: "similarity", the cosine with the query, or "probability" against negatives and backgrounds,
    weighted by the proposer's quality, ties by similarity. Returns vectors, similarity and
    probability, the latter two float32 (K,); for an image alone the probability is the cosine.
    """
    similarity = found.embeddings @ query.vector
    rivals = np.concatenate([query.negatives, query.backgrounds])
    against = found.embeddings @ rivals.T  # (K, R)
    kept = np.ones(len(found), bool)
    if query.text is None:
        probability = similarity.clip(0, 1).astype(np.float64)
        own = against[:, len(query.negatives) :].max(axis=1, initial=-1)
    else:
        own = found.embeddings @ query.text
        table = probabilities(own[:, None], against, query.logit_scale)
        probability = weigh(table, found.quality.clip(0, 1), query.quality_weight)[:, 0]
    if len(query.negatives):
        kept = against[:, : len(query.negatives)].max(axis=1) < own
    keys = (-similarity, -probability) if by == "probability" else (-similarity,)
    order = np.lexsort((found.region, found.image, *keys))
    order = order[kept[order]]
    return found[order], similarity[order].astype(np.float32), probability[order].astype(np.float32)
