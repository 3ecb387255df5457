"""Turn cosines into probabilities: the one place where texts, rivals, scale and quality meet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from ..encoders import Encoder, Serving
from ..errors import NotWritable
from ..files import atomic
from ..types import Array
from ..weights.cache import cache_folder
from . import templates, vocabulary

UNSCORED = -1.0  # similarity of a region that was not embedded: the minimum of a cosine
_MOST_KEPT = 4  # vocabularies in memory
_KEPT: dict[str, Array] = {}


@dataclass(frozen=True, eq=False)
class Ranking:
    """Texts to compare embeddings with, each of which competes with its rivals.

    names: T texts. rivals: K texts: negatives, backgrounds and everyday names. competes: bool
    (T, K), which of them compete with each text. embeddings: float32 (T + K, D), unit rows.
    logit_scale: factor of the cosines, already exponentiated. quality_weight: see ``weigh``.
    """

    names: tuple[str, ...]
    rivals: tuple[str, ...]
    competes: Array
    embeddings: Array
    logit_scale: float
    quality_weight: float

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        serving: Serving,
        names: Sequence[str],
        rivals: Sequence[str],
        sentences: Sequence[str] | None = None,
    ) -> Ranking:
        """Embed texts and rivals in the templates ``sentences``; default: those of ``serving``.

        Where ``serving.vocabulary`` is set, everyday names are rivals, too.
        """
        chosen = tuple(serving.templates if sentences is None else sentences)
        embedded = embed_texts(encoder, [*names, *rivals], chosen)
        competes = np.array([[rival != name for rival in rivals] for name in names], bool)
        competes = competes.reshape(len(names), len(rivals))
        every = tuple(rivals)
        if serving.vocabulary:
            words = vocabulary.everyday()
            meanings = embed_vocabulary(encoder, chosen)  # (V, D)
            near = similarity(embedded[: len(names)], meanings)  # (T, V)
            rows = [words.competing(name, row) for name, row in zip(names, near, strict=True)]
            competes = np.hstack([competes, np.array(rows).reshape(len(names), len(meanings))])
            embedded, every = np.concatenate([embedded, meanings]), every + words.names
        scale = logit_scale_of(encoder, serving)
        return cls(tuple(names), every, competes, embedded, scale, serving.quality_weight)

    def only(self, columns: Sequence[int]) -> Ranking:
        """Return the ranking of some of the texts."""
        rows = [*columns, *range(len(self.names), len(self.embeddings))]
        names = tuple(self.names[column] for column in columns)
        competes, embeddings = self.competes[list(columns)], self.embeddings[rows]
        return replace(self, names=names, competes=competes, embeddings=embeddings)

    def similarity(self, embeddings: Array) -> Array:
        """Return the cosine of N regions with texts, then rivals: float32 (N, T + K)."""
        return similarity(embeddings, self.embeddings)

    def probability(self, cosine: Array, quality: Array) -> Array:
        """Return each text's probability against its rivals: float64 (N, T).

        cosine: (N, T + K), as ``similarity`` returns it. quality: (N,) in [0, 1].
        """
        count = len(self.names)
        table = np.zeros((len(cosine), count))
        for column, competes in enumerate(self.competes):
            against = cosine[:, count:][:, competes]
            table[:, [column]] = probabilities(cosine[:, [column]], against, self.logit_scale)
        return weigh(table, quality, self.quality_weight)


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


def embed_texts(encoder: Encoder, texts: Sequence[str], sentences: Sequence[str]) -> Array:
    """Embed T texts, each the mean over templates of unit embeddings: float32 (T, D), unit rows."""
    expanded = [sentence for text in texts for sentence in templates.expand(text, sentences)]
    embeddings = encoder.encode_texts(expanded)
    return unit(embeddings.reshape(len(texts), len(sentences), embeddings.shape[1]).mean(axis=1))


def embed_vocabulary(encoder: Encoder, sentences: tuple[str, ...]) -> Array:
    """Embed the everyday names: float32 (V, D), unit rows; kept by the encoder's fingerprint."""
    names = vocabulary.everyday().names
    if not encoder.fingerprint:
        return embed_texts(encoder, names, sentences)
    key = sha256(f"{encoder.fingerprint} {sentences} {names}".encode()).hexdigest()[:24]
    rows = _KEPT.get(key)
    if rows is None:
        path = cache_folder() / "vocabularies" / f"{key}.npy"
        rows = _read(path, len(names))
        if rows is None:
            rows = embed_texts(encoder, names, sentences)
            _write(path, rows)
        while len(_KEPT) >= _MOST_KEPT:
            _KEPT.pop(next(iter(_KEPT)), None)
        _KEPT[key] = rows
    return rows


def _read(path: Path, count: int) -> Array | None:
    with suppress(OSError, ValueError, EOFError):
        rows: Array = np.load(path, allow_pickle=False)
        if rows.dtype == np.float32 and rows.ndim == 2 and len(rows) == count:
            return rows
    return None


def _write(path: Path, rows: Array) -> None:
    buffer = io.BytesIO()
    np.save(buffer, rows)
    with suppress(NotWritable):
        atomic.write(path, buffer.getvalue())


def similarity(embeddings: Array, text_embeddings: Array) -> Array:
    """Return the cosine of N regions with T texts: float32 (N, T); -1 for zero rows."""
    cosine: Array = np.clip(embeddings @ text_embeddings.T, -1, 1).astype(np.float32)
    cosine[~embeddings.any(axis=1)] = UNSCORED
    return cosine


def unit(rows: Array) -> Array:
    """Scale rows to length one; a zero row stays zero."""
    scaled: Array = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return scaled.astype(np.float32)
