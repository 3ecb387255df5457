"""Name what a region rather is than the text that it was compared with."""

from __future__ import annotations

import numpy as np

from ..encoders import Encoder, Serving
from ..types import Array, Resemblance
from .probability import Ranking, embed_vocabulary, similarity
from .vocabulary import everyday


def resemblances(
    encoder: Encoder, serving: Serving, ranking: Ranking, embeddings: Array, quality: Array
) -> tuple[Resemblance | None, ...]:
    """Name the best region of each of T texts by the everyday name that is nearest to it.

    embeddings: (T, D), quality: (T,), of the region that came nearest to each text; a zero row for
    none. None for a region that is nearer to its text, for a name that means the same as the text,
    and for one that would be no answer either: below ``serving.threshold``.
    """
    vocabulary, meanings = everyday(), embed_vocabulary(encoder, serving.templates)
    texts = ranking.embeddings[: len(ranking.names)]
    near, own = similarity(embeddings, meanings), (embeddings * texts).sum(axis=1)  # (T, V), (T,)
    best = near.argmax(axis=1)
    chosen = [vocabulary.names[row] for row in best]
    named = Ranking.of(encoder, serving, chosen, serving.backgrounds)
    cosine = named.similarity(embeddings)
    probability = np.diagonal(named.probability(cosine, quality))
    found: list[Resemblance | None] = []
    for row, text in enumerate(ranking.names):
        competes = vocabulary.competing(text, similarity(texts[[row]], meanings)[0])[best[row]]
        is_better = near[row, best[row]] > own[row] and probability[row] >= serving.threshold
        found.append(
            Resemblance(chosen[row], float(probability[row])) if competes and is_better else None
        )
    return tuple(found)
