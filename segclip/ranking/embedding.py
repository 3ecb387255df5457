"""Embed texts, concepts and everyday names, and compare embeddings by their cosine."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np

from ..encoders import Encoder
from ..errors import NotWritable, Unsupported
from ..files import atomic
from ..types import Array
from ..weights.cache import cache_folder
from . import concepts, templates, vocabulary
from .concepts import Concept

UNSCORED = -1.0  # similarity of a region that was not embedded: the minimum of a cosine
_MOST_KEPT = 4  # vocabularies in memory
_KEPT: dict[str, Array] = {}


def embed_texts(encoder: Encoder, texts: Sequence[str], sentences: Sequence[str]) -> Array:
    """Embed T texts, each the mean over templates of unit embeddings: float32 (T, D), unit rows.

    Raises Unsupported for a concept such as "@bolt", which has embeddings of regions.
    """
    if named := next((text for text in texts if concepts.name_in(text) is not None), None):
        raise Unsupported(f"only texts are compared here, and {named!r} is a concept; give a text")
    return _embed(encoder, texts, sentences)


def embed_names(
    encoder: Encoder,
    names: Sequence[str],
    sentences: Sequence[str],
    found: Mapping[int, Concept],
) -> Array:
    """Embed T texts and concepts: float32 (T, D), unit rows; a concept's is its likes' mean.

    found: as ``find_concepts`` returns it.
    """
    texts = [name for column, name in enumerate(names) if column not in found]
    embedded = _embed(encoder, texts, sentences)
    if not found:
        return embedded
    rows = np.zeros((len(names), embedded.shape[1]), np.float32)
    rows[[column for column in range(len(names)) if column not in found]] = embedded
    for column, concept in found.items():
        rows[column] = unit(concept.likes[concept.typical].mean(axis=0))
    return rows


def embed_vocabulary(encoder: Encoder, sentences: tuple[str, ...]) -> Array:
    """Embed the everyday names: float32 (V, D), unit rows; kept by the encoder's fingerprint."""
    names = vocabulary.everyday().names
    if not encoder.fingerprint:
        return _embed(encoder, names, sentences)
    key = sha256(f"{encoder.fingerprint} {sentences} {names}".encode()).hexdigest()[:24]
    rows = _KEPT.get(key)
    if rows is None:
        path = cache_folder() / "vocabularies" / f"{key}.npy"
        rows = _read(path, len(names))
        if rows is None:
            rows = _embed(encoder, names, sentences)
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


def _embed(encoder: Encoder, texts: Sequence[str], sentences: Sequence[str]) -> Array:
    expanded = [sentence for text in texts for sentence in templates.expand(text, sentences)]
    embeddings = encoder.encode_texts(expanded)
    return unit(embeddings.reshape(len(texts), len(sentences), embeddings.shape[1]).mean(axis=1))


def similarity(embeddings: Array, text_embeddings: Array) -> Array:
    """Return the cosine of N regions with T texts: float32 (N, T); -1 for zero rows."""
    cosine: Array = np.clip(embeddings @ text_embeddings.T, -1, 1).astype(np.float32)
    cosine[~embeddings.any(axis=1)] = UNSCORED
    return cosine


def unit(rows: Array) -> Array:
    """Scale rows to length one; a zero row stays zero."""
    scaled: Array = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return scaled.astype(np.float32)
