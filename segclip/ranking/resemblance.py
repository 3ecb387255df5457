"""Name what a region rather is than the text that it was compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..encoders import Encoder, Serving
from ..types import Array, Regions, Resemblance
from .concepts import MARK
from .embedding import embed_vocabulary, similarity
from .probability import Ranking
from .vocabulary import everyday


def resemblances(
    encoder: Encoder,
    serving: Serving,
    texts: Sequence[str],
    embedded: Array,
    regions: Regions,
) -> tuple[Resemblance | None, ...]:
    """Name the region that came nearest to each of T texts by the everyday name nearest to it.

    embedded: the texts, (T, D), which may be the same twice. regions: T of them. None for a region
    that is nearer to its text, for a name that means the same as the text, and for one that would
    be no answer either: below ``serving.threshold``.
    """
    vocabulary, meanings = everyday(), embed_vocabulary(encoder, serving.templates)
    near = similarity(regions.embeddings, meanings)  # (T, V)
    own = (regions.embeddings * embedded).sum(axis=1)
    best = near.argmax(axis=1)
    chosen = tuple(vocabulary.names[row] for row in best)
    named = Ranking.of(encoder, serving, chosen)
    quality = regions.proposals.quality
    probability = np.diagonal(named.probability(regions.embeddings, quality))
    alike = similarity(embedded, meanings)  # (T, V)
    found: list[Resemblance | None] = []
    for row, text in enumerate(texts):
        differs = MARK not in text and vocabulary.competing(text, alike[row])[best[row]]
        is_better = near[row, best[row]] > own[row] and probability[row] >= serving.threshold
        known = Resemblance(chosen[row], float(probability[row]))
        found.append(known if differs and is_better else None)
    return tuple(found)
