"""Tiles to train a promptable network on: small scenes, each a window of the frame that serving looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from segclip.types import Array

from .glyphs import Glyph
from .photos import Photo
from .scenes import SceneConfig, compose

FRAME = 800  # px; a scene of 640 x 480 is enlarged to it, which makes edges finer
PATCH = 16  # px of a cell of the image encoder's map
TILE = 320  # px
CELL = PATCH // 4  # pixels a logit covers
OBJECTS = 6  # asked about in a tile
MIN_PIXELS = 100
PHOTO_SHARE = 0.1  # of the things in the photo behind that are asked about too; they are many and hard
SIZES = (TILE * 640 // FRAME, TILE)  # px of a tile before it is enlarged, if it is


@dataclass(frozen=True, eq=False)
class Tile:
    """Hold a tile and N of its objects.

    pixels: uint8 (TILE, TILE, 3), black where the frame's padding would be. masks: bool (N, TILE, TILE). corner: x, y
    of the tile in the frame, in px. plain, plain_masks: the same before the tile was enlarged, (S, S, 3), (N, S, S).
    """

    pixels: Array
    masks: Array
    corner: tuple[int, int]
    plain: Array
    plain_masks: Array

    @property
    def shares(self) -> torch.Tensor:
        """Give each object's share of each of the decoder's cells: float32 (N, 1, TILE / CELL, TILE / CELL)."""
        return F.avg_pool2d(torch.from_numpy(self.masks).float()[:, None], CELL)


def make_tile(seed: int, glyphs: Sequence[Glyph], photos: Sequence[Photo]) -> Tile | None:
    """Compose a tile, drawn objects and those of the photo behind them alike; None when it has none."""
    rng = np.random.default_rng([seed, 2])
    size = int(rng.choice(SIZES))
    config = SceneConfig(size=(size, size), objects=(2, 7), across=(0.1 * size, 0.75 * size))
    scene = compose(seed, glyphs, photos, config)
    pixels = cv2.resize(scene.pixels, (TILE, TILE), interpolation=cv2.INTER_LINEAR)
    layers = cv2.resize(scene.layers, (TILE, TILE), interpolation=cv2.INTER_NEAREST)
    plain, drawn = scene.pixels.copy(), scene.layers.copy()
    if rng.random() < 0.3:  # an image that ends inside the tile, at the bottom or on the right
        end = int(rng.integers(TILE * 6 // 10, TILE))
        down = rng.random() < 0.7
        for whole, parts in ((TILE, (pixels, layers)), (size, (plain, drawn))):
            start = end * whole // TILE
            beyond = np.s_[start:] if down else np.s_[:, start:]
            parts[0][beyond], parts[1][beyond] = 0, -1
    codes, counts = np.unique(layers, return_counts=True)
    kept = (codes != -1) & (counts >= MIN_PIXELS) & ((codes >= 0) | (rng.random(len(codes)) < PHOTO_SHARE))
    codes = rng.permutation(codes[kept])[:OBJECTS]
    if not len(codes):
        return None
    room = (FRAME - TILE) // PATCH
    x, y = (int(place) * PATCH for place in rng.integers(0, room + 1, 2))
    return Tile(pixels, layers == codes[:, None, None], (x, y), plain, drawn == codes[:, None, None])
