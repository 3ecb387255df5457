"""Localise texts in an image: heat maps of an encoder's patches, and the best text per pixel."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..encoders import Encoder
from ..ranking.embedding import embed_texts
from ..types import Array, Image

NOTHING = -1  # index of background pixels
# sigma in patches; a single hot patch is more often an edge than an object: worth 3 points of the
# pointing game on scenes
_SMOOTHING = 0.6


def heat_maps(encoder: Encoder, image: Image, texts: Sequence[str]) -> Array:
    """Return the cosine of every pixel with T texts, in one pass: float32 (T, H, W).

    Raises Unsupported for an encoder without dense features.
    """
    dense = encoder.encode_dense(image)  # (h, w, D)
    embedded = embed_texts(encoder, texts, encoder.serving.templates)
    cosines = (dense @ embedded.T).astype(np.float32)  # (h, w, T)
    height, width = image.size
    maps = np.empty((len(texts), height, width), np.float32)
    for row in range(len(texts)):
        smooth = cv2.GaussianBlur(cosines[..., row], (3, 3), _SMOOTHING)
        maps[row] = cv2.resize(smooth, (width, height))
    return maps


def label_pixels(encoder: Encoder, image: Image, texts: Sequence[str]) -> Array:
    """Return the index of the best of T texts for each pixel: int32 (H, W).

    NOTHING where one of the encoder's backgrounds fits better. Zero-shot semantic segmentation
    without proposals. Raises Unsupported for an encoder without
    dense features.
    """
    backgrounds = [text for text in encoder.serving.backgrounds if text not in texts]
    maps = heat_maps(encoder, image, [*texts, *backgrounds])
    best = (
        maps.argmax(axis=0).astype(np.int32)
        if len(maps)
        else np.full(image.size, NOTHING, np.int32)
    )
    best[best >= len(texts)] = NOTHING
    return best
