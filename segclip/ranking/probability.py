"""Turn cosines into probabilities: the one place where texts, rivals, scale and quality meet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..encoders import Encoder, Serving
from ..errors import BadPrompt
from ..types import Array
from . import concepts, vocabulary
from .concepts import MARK, Concept
from .embedding import embed_names, embed_vocabulary, similarity, unit

# log-odds of a concept per cosine, times 1 - likeness; the F1 on drawn scenes is flat around it
_STEEPNESS = 8.0


@dataclass(frozen=True, eq=False)
class Taught:
    """The concepts among the columns of a table of cosines, made comparable with its texts.

    concepts: by column. backgrounds: float32 (K, D), unit rows. serving: of the encoder.
    logit_scale: factor of the cosines of texts.
    """

    concepts: Mapping[int, Concept]
    backgrounds: Array
    serving: Serving
    logit_scale: float

    def align(self, cosine: Array, embeddings: Array) -> Array:
        """Replace each concept's column by the cosine that a text of its log-odds would have.

        The texts' softmax over {text, rivals} then holds for both. cosine: (N, C). embeddings:
        (N, D). Returns (N, C); float64 where there are concepts.
        """
        if not self.concepts:
            return cosine
        level, aligned = self.level(embeddings), cosine.astype(np.float64)
        for column, concept in self.concepts.items():
            odds = log_odds(concept, embeddings, self.serving)
            aligned[:, column] = level + odds / self.logit_scale
        return aligned

    def level(self, embeddings: Array) -> Array:
        """Return the cosine of N regions with all backgrounds taken together: float64 (N,)."""
        if not len(self.backgrounds):
            return np.zeros(len(embeddings))
        logits = self.logit_scale * similarity(embeddings, self.backgrounds).astype(np.float64)
        level: Array = np.logaddexp.reduce(logits, axis=1) / self.logit_scale
        return level


def find_concepts(
    encoder: Encoder, names: Sequence[str], unsaved: Sequence[Concept] = ()
) -> dict[int, Concept]:
    """Return the concepts among names such as "@bolt", by column.

    Raises UnknownName, BadIndex for a damaged one, and Unsupported for that of another encoder.
    """
    marked = {column: concepts.name_in(name) for column, name in enumerate(names)}
    for column, name in enumerate(names):
        if marked[column] is None and MARK in name and concepts.names_in([name]):
            raise BadPrompt(f"words of place such as those of {name!r} are for segmenting only")
    found = {
        column: concepts.find(name, unsaved) for column, name in marked.items() if name is not None
    }
    for concept in found.values():
        concept.check(encoder.name, encoder.fingerprint)
    return found


def log_odds(concept: Concept, embeddings: Array, serving: Serving) -> Array:
    """Return how likely N regions are of a concept's kind, as log-odds: float64 (N,).

    A region is compared with the mean of the typical likes, a prototype as in Snell et al. 2017
    (https://arxiv.org/abs/1703.05175), and with the nearest unlike. One at ``level_of`` the number
    of likes is as likely as the threshold of ``serving``. embeddings: (N, D).
    """
    likeness, threshold = serving.likeness, np.clip(serving.threshold, 1e-6, 1 - 1e-6)
    slope = _STEEPNESS / max(1 - likeness, 0.01)
    likes = concept.likes[concept.typical]
    prototype = unit(likes.mean(axis=0, keepdims=True))
    margin = _nearest(embeddings, prototype) - level_of(len(likes), likeness)
    odds = slope * margin
    if len(concept.unlikes):
        against = _nearest(embeddings, concept.unlikes) - level_of(1, likeness)
        odds = -np.logaddexp(-odds, slope * (against - margin))
    shifted: Array = odds + np.log(threshold / (1 - threshold))
    return shifted


def level_of(count: int, likeness: float) -> float:
    """Return the cosine of a region with the mean of ``count`` others, if each pair has likeness.

    The mean of more examples is nearer to each of its kind, so that more is expected of a region.
    """
    pair = max(likeness, 0.0)
    return pair / math.sqrt((1 + (count - 1) * pair) / count)


def _nearest(embeddings: Array, rows: Array) -> Array:
    """Return the highest cosine of N regions with the rows: float64 (N,)."""
    nearest: Array = similarity(embeddings, rows).max(axis=1).astype(np.float64)
    return nearest


@dataclass(frozen=True, eq=False)
class Ranking:
    """Texts and concepts to compare embeddings with, each of which competes with the rivals.

    names: T of them. rivals: K, negatives then backgrounds. embeddings: float32 (T + K, D), unit
    rows; of a concept the mean of its examples. logit_scale: factor of the cosines, already
    exponentiated. quality_weight: see ``weigh``. everyday: float32 (V, D), names that each text
    competes with, too; competes: bool (T, V), which of them.
    """

    names: tuple[str, ...]
    rivals: tuple[str, ...]
    embeddings: Array
    logit_scale: float
    quality_weight: float
    taught: Taught
    everyday: Array
    competes: Array

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        serving: Serving,
        names: Sequence[str],
        negatives: Sequence[str] = (),
        unsaved: Sequence[Concept] = (),
    ) -> Ranking:
        """Embed texts, negatives and the backgrounds of ``serving`` in its templates.

        Where ``serving.vocabulary`` is set, texts compete with everyday names, too.

        A text such as "@bolt" is a concept, one of ``unsaved`` or a saved one. Raises what
        ``find_concepts`` does.
        """
        if named := concepts.names_in(serving.backgrounds):
            raise BadPrompt(f"a background is a text, not the concept @{named[0]}; rule it out")
        rivals = (*negatives, *serving.backgrounds)
        every = (*names, *rivals)
        found = find_concepts(encoder, every, unsaved)
        embedded = embed_names(encoder, every, serving.templates, found)
        scale = logit_scale_of(encoder, serving)
        backgrounds = embedded[len(names) + len(negatives) :]
        taught = Taught(found, backgrounds, serving, scale)
        everyday = embedded[:0]
        if serving.vocabulary:
            everyday = embed_vocabulary(encoder, serving.templates)
        near, known = similarity(embedded[: len(names)], everyday), vocabulary.everyday()
        competes = np.zeros(near.shape, bool)
        for row, name in enumerate(names):
            if serving.vocabulary and row not in found:
                competes[row] = known.competing(name, near[row])
        weight = serving.quality_weight
        return cls(tuple(names), rivals, embedded, scale, weight, taught, everyday, competes)

    def similarity(self, embeddings: Array) -> Array:
        """Return the cosine of N regions with texts, then rivals: float32 (N, T + K)."""
        return similarity(embeddings, self.embeddings)

    @property
    def negatives(self) -> int:
        """Return how many of the rivals are negatives."""
        return len(self.rivals) - len(self.taught.backgrounds)

    def aligned(self, embeddings: Array) -> Array:
        """Return ``similarity`` with the columns of concepts as ``Taught.align`` makes them."""
        return self.taught.align(self.similarity(embeddings), embeddings)

    def probability(self, embeddings: Array, quality: Array) -> Array:
        """Return each text's probability against the rivals other than itself: float64 (N, T).

        embeddings: (N, D). quality: (N,) in [0, 1].
        """
        cosine = self.aligned(embeddings)
        level = self.taught.level(embeddings)[:, None]
        everyday = similarity(embeddings, self.everyday)  # (N, V)
        table = np.zeros((len(cosine), len(self.names)))
        for column, name in enumerate(self.names):
            against = cosine[:, self._rivals_of(column, name)]
            if column in self.taught.concepts:  # also where there are no backgrounds
                against = np.hstack([against, level])
            against = np.hstack([against, everyday[:, self.competes[column]]])
            table[:, [column]] = probabilities(cosine[:, [column]], against, self.logit_scale)
        return weigh(table, quality, self.quality_weight)

    def _rivals_of(self, column: int, name: str) -> list[int]:
        """Return the columns of the rivals of a text, or of a concept, without the backgrounds."""
        count = self.negatives if column in self.taught.concepts else len(self.rivals)
        return [
            len(self.names) + row for row, rival in enumerate(self.rivals[:count]) if rival != name
        ]


def logit_scale_of(encoder: Encoder, serving: Serving) -> float:
    """Return the factor of cosines the threshold was fitted with, else the encoder's own."""
    return serving.logit_scale or encoder.logit_scale


def probabilities(similarity: Array, others: Array, logit_scale: float) -> Array:
    """Return each text's probability per region, softmax over {text, others}: float64 (N, T).

    similarity: cosines with the texts (N, T). others: with the negatives and backgrounds (N, K);
    without any the probability is 1. A value depends neither on the number of regions nor on the
    other texts.
    """
    given, rest = similarity.astype(np.float64), others.astype(np.float64)
    gap = rest[:, None, :] - given[:, :, None]  # (N, T, K)
    with np.errstate(over="ignore"):
        shares: Array = 1 / (1 + np.exp(logit_scale * gap).sum(axis=2))
    return shares


def weigh(probability: Array, quality: Array, weight: float) -> Array:
    """Multiply each region's odds by quality ** weight: float64 (N, T).

    The proposer's belief that a mask is an object, as a prior, like objectness in ViLD (Gu et al.,
    2022) and F-VLM (Kuo et al., 2023). probability: (N, T). quality: (N,) in [0, 1].
    """
    weighted = probability * quality.astype(np.float64)[:, None] ** weight
    return weighted / np.maximum(weighted + 1 - probability, np.finfo(np.float64).tiny)
