"""Images as encoded bytes, and what decodes them right."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image

from segclip.types import Array

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters() -> Array:
    """Paint four flat quarters, so that any rotation or channel swap is visible: (40, 60, 3)."""
    pixels = np.empty((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:], pixels[20:, :30], pixels[20:, 30:] = RED, GREEN, BLUE, WHITE
    return pixels


def encode(image: PIL.Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def assert_quarters(pixels: Array, tolerance: int = 0) -> None:
    assert pixels.shape == (40, 60, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - quarters()).max() <= tolerance
