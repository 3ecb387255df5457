"""Embed the regions of an image with an encoder, by crops or from dense features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import cv2
import numpy as np

from .. import registry
from ..encoders import Encoder
from ..ranking.embedding import unit
from ..types import Array, Image, Masks
from . import crops
from .crops import POLICIES, CropPolicy, View

CHUNK = 64  # regions cropped at a time, which bounds memory


class CropScorer:
    """Embeds each region by its crops, cut by a policy and blended by weight."""

    def __init__(self, encoder: Encoder, policy: CropPolicy | None = None) -> None:
        self.encoder = encoder
        self.policy = encoder.serving.policy if policy is None else policy

    def scores(self, masks: Masks) -> Array:
        """Return which masks are large enough to be embedded: bool (N,); empty masks never are."""
        return masks.areas > self.policy.min_area

    def embed_regions(self, image: Image, masks: Masks, quality: Array | None = None) -> Array:
        """Embed N masks: float32 (N, D), unit rows; zero rows for masks that are too small.

        quality: (N,), the proposer's confidence; without it, every mask gets all views.
        """
        scored = np.flatnonzero(self.scores(masks))
        likely = np.ones(len(masks), bool) if quality is None else quality >= self.policy.thorough
        parts = []
        for thorough in (True, False):
            rows = scored[likely[scored] == thorough]
            if len(rows) or (thorough and not len(scored)):  # no masks: one empty chunk, for D
                chunks = np.split(rows, range(CHUNK, len(rows), CHUNK))
                parts += [
                    (chunk, self._embed(image, masks[chunk], thorough=thorough)) for chunk in chunks
                ]
        embeddings = np.zeros((len(masks), parts[0][1].shape[1]), np.float32)
        for chunk, embedded in parts:
            embeddings[chunk] = embedded
        return embeddings

    def _embed(self, image: Image, masks: Masks, *, thorough: bool) -> Array:
        views = self.policy.views if thorough else self.policy.views[:1]
        flip = thorough and self.policy.flip
        return unit(
            np.sum(
                [view.weight * self._embed_view(image, masks, view, flip) for view in views], axis=0
            )
        )

    def _embed_view(self, image: Image, masks: Masks, view: View, flip: bool) -> Array:
        if not self.policy.square:
            return self.encoder.encode_images(crops.cut_boxes(image, masks, view.fill))
        cut = crops.cut(image, masks, view, self.encoder.image_size)
        embeddings = self.encoder.encode_images(cut)
        if flip:
            embeddings = unit(
                embeddings + self.encoder.encode_images(np.ascontiguousarray(cut[:, :, ::-1]))
            )
        return embeddings


class DenseScorer:
    """Embeds regions in one pass over the image: mean patch inside minus mean patch outside.

    The similarity with a text is then the region's mean heat minus that of its surroundings, the
    score of a mask on a heat map. Needs an encoder with dense features. outside: weight of the
    outside mean; 0 for patches that were trained to match crop embeddings.
    """

    def __init__(
        self, encoder: Encoder, policy: CropPolicy | None = None, *, outside: float = 1.0
    ) -> None:
        self.encoder, self.outside = encoder, outside
        self.policy = encoder.serving.policy if policy is None else policy

    def embed_regions(self, image: Image, masks: Masks, quality: Array | None = None) -> Array:
        """Embed N masks: float32 (N, D), unit rows; zero rows for masks that are too small.

        quality: ignored.
        """
        dense = self.encoder.encode_dense(image)  # (h, w, D)
        grid = dense.shape[1::-1]
        inside = np.zeros((len(masks), dense.shape[0] * dense.shape[1]), np.float32)
        for row in range(len(masks)):
            inside[row] = cv2.resize(
                masks.full(row).astype(np.float32), grid, interpolation=cv2.INTER_AREA
            ).ravel()
        patches = dense.reshape(-1, dense.shape[2])
        embeddings = unit(_mean(inside, patches) - self.outside * _mean(1 - inside, patches))
        embeddings[masks.areas <= self.policy.min_area] = 0
        return embeddings


def _mean(weights: Array, rows: Array) -> Array:
    total: Array = weights @ rows / np.maximum(weights.sum(axis=1, keepdims=True), 1e-6)
    return total


Scorer: TypeAlias = CropScorer | DenseScorer
SCORERS: dict[str, Callable[[Encoder, CropPolicy | None], Scorer]] = {
    "crop": CropScorer,
    "dense": DenseScorer,
    "pooled": partial(DenseScorer, outside=0.0),
}


def scorer_of(encoder: Encoder, policy: str | CropPolicy | None = None) -> Scorer:
    """Return the scorer of the encoder's ``serving``, or a crop scorer if a policy is given.

    Raises UnknownName.
    """
    chosen = registry.choose(POLICIES, policy, "crop policy") if isinstance(policy, str) else policy
    return registry.choose(SCORERS, "crop" if chosen else encoder.serving.scorer, "scorer")(
        encoder, chosen
    )
