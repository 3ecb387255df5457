"""Embed a text or image query, and rank its nearest neighbours like regions of an image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .. import images
from ..encoders import Encoder
from ..errors import BadPrompt
from ..question import Question, shorten
from ..ranking import templates
from ..ranking.embedding import unit
from ..ranking.probability import Ranking
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

    vector: float32 (D,), unit; its nearest neighbours are the candidates. ranking: of the text, if
    there is one, against the negatives and backgrounds.
    """

    vector: Array
    ranking: Ranking


def embed(encoder: Encoder, query: Query) -> Embedded:
    """Embed a query. Raises BadPrompt without text and image or for a bad text, and BadImage.

    Raises UnknownName and Unsupported for the text of a concept, as ``Ranking.of`` does.
    """
    if not query.text.strip() and query.image is None:
        raise BadPrompt(
            "no text or image was given to search for; give a text, for example 'a red umbrella', "
            "or an image"
        )
    words = [shorten(query.text)] if query.text.strip() else ()
    question = Question(words, negatives=[shorten(text) for text in query.negatives])
    serving = encoder.serving
    if query.templates:
        serving = replace(serving, templates=templates.get(query.templates))
    ranking = Ranking.of(encoder, serving, question.texts, question.negatives)
    parts = [ranking.embeddings[: len(question.texts)]]
    if query.image is not None:
        parts.append(encoder.encode_images([images.load(query.image).pixels]))
    return Embedded(unit(np.concatenate(parts).mean(axis=0)), ranking)


def rank(
    query: Embedded, found: Vectors, *, by: str = "probability"
) -> tuple[Vectors, Array, Array]:
    """Sort candidates, best first, and drop those that match a negative better.

    by: "similarity", the cosine with the query, or "probability" against negatives and backgrounds,
    weighted by the proposer's quality, ties by similarity. Returns vectors, similarity and
    probability, the latter two float32 (K,); for an image alone the probability is the cosine.
    """
    ranking, similarity = query.ranking, found.embeddings @ query.vector
    count, kept = len(ranking.names), np.ones(len(found), bool)
    cosine = ranking.aligned(found.embeddings)
    if count:
        own = cosine[:, 0]
        probability = ranking.probability(found.embeddings, found.quality.clip(0, 1))[:, 0]
    else:
        own = cosine[:, ranking.negatives :].max(axis=1, initial=-1)
        probability = similarity.clip(0, 1).astype(np.float64)
    if ranking.negatives:
        kept = cosine[:, count : count + ranking.negatives].max(axis=1) < own
    keys = (-similarity, -probability) if by == "probability" else (-similarity,)
    order = np.lexsort((found.region, found.image, *keys))
    order = order[kept[order]]
    return found[order], similarity[order].astype(np.float32), probability[order].astype(np.float32)
