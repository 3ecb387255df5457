"""Images too thin for a network's frame (fault 17.14)."""

from __future__ import annotations

import numpy as np

from segclip.types import Image

SIZES = [(4000, 2), (2, 4000), (3000, 1), (1, 1), (1, 3)]  # (H, W)
LONGEST = [(100_000, 1), (1, 100_000)]


def striped(size: tuple[int, int]) -> Image:
    pixels = np.full((*size, 3), (200, 30, 30), np.uint8)
    pixels[size[0] // 3 : size[0] // 2] = (20, 200, 40)
    pixels[:, size[1] // 2 : size[1] * 3 // 4] = (30, 30, 220)
    return Image(pixels, "thin.png")
