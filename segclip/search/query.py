"""Turn words and pictures into a query vector, and order what lies near it as segments of one image
are.
"""

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
    """Say what is looked for.

    text: words, "" for none. image: a picture to look like, beside the text or instead. negatives:
    texts it is not: what answers one of them better is left out. templates: sentences a text is put
    in; None takes the encoder's own.
    """

    text: str = ""
    image: images.Source | None = None
    negatives: tuple[str, ...] = ()
    templates: str | None = None


@dataclass(frozen=True, eq=False)
class Embedded:
    """Hold a query in an encoder's terms.

    vector: float32 (D,), unit: what is near is found. text: (D,) or None for an image alone.
    negatives, backgrounds: (K, D), what a text competes with.
    """

    vector: Array
    text: Array | None
    negatives: Array
    backgrounds: Array
    logit_scale: float
    quality_weight: float


def embed(encoder: Encoder, query: Query) -> Embedded:
    """Embed a query. Raises BadPrompt for neither text nor image, for an empty text, BadImage for
    the image.
    """
    if not query.text.strip() and query.image is None:
        raise BadPrompt(
            "nothing is looked for: give a text, for example 'a red umbrella', or an image"
        )
    words = [shorten(query.text)] if query.text.strip() else ()
    question = Question(words, negatives=[shorten(text) for text in query.negatives])
    asked, ruled_out = question.texts, question.negatives
    backgrounds = [text for text in encoder.serving.backgrounds if text not in asked]
    sentences = templates.get(query.templates) if query.templates else encoder.serving.templates
    rows = embed_texts(encoder, [*asked, *ruled_out, *backgrounds], sentences)
    first, second = len(asked), len(asked) + len(ruled_out)
    parts = [rows[:first]]
    if query.image is not None:
        parts.append(encoder.encode_images([images.load(query.image).pixels]))
    return Embedded(
        unit(np.concatenate(parts).mean(axis=0)),
        rows[0] if asked else None,
        rows[first:second],
        rows[second:],
        logit_scale_of(encoder, encoder.serving),
        encoder.serving.quality_weight,
    )


def rank(
    query: Embedded, found: Vectors, *, by: str = "probability"
) -> tuple[Vectors, Array, Array]:
    """Order candidates, best first, and drop those that answer a negative better: vectors,
    similarity, probability.

    by: "similarity", the cosine with the query, or "probability" against negatives and backgrounds,
    weighed by the proposer's quality, ties by similarity. similarity, probability: float32 (K,);
    for an image alone the probability is the cosine.
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
    order = np.lexsort((found.region, found.picture, *keys))
    order = order[kept[order]]
    return found[order], similarity[order].astype(np.float32), probability[order].astype(np.float32)
