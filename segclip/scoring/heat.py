"""See where in an image a text is: heat maps of an encoder's patches, and which text each pixel
shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..encoders import Encoder
from ..ranking.probability import embed_texts
from ..types import Array, Image

NOTHING = -1  # of a pixel that shows a background
# patches; a lone hot patch is an edge more often than a thing: 3 points of the pointing game on
# scenes
EVEN = 0.6


def heat_maps(encoder: Encoder, image: Image, texts: Sequence[str]) -> Array:
    """Compare every pixel of an image with T texts, in one pass: cosines, float32 (T, H, W).

    Raises Unsupported for an encoder without dense features.
    """
    dense = encoder.encode_dense(image)  # (h, w, D)
    cosines = (dense @ embed_texts(encoder, texts, encoder.serving.templates).T).astype(
        np.float32
    )  # (h, w, T)
    height, width = image.size
    maps = np.empty((len(texts), height, width), np.float32)
    for row in range(len(texts)):
        even = cv2.GaussianBlur(cosines[..., row], (3, 3), EVEN)
        maps[row] = cv2.resize(even, (width, height))
    return maps


def label_pixels(encoder: Encoder, image: Image, texts: Sequence[str]) -> Array:
    """Say which of T texts each pixel shows: int32 (H, W), NOTHING where a background of the
    encoder's fits better.

    Zero-shot semantic segmentation without proposals. Raises Unsupported for an encoder without
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
