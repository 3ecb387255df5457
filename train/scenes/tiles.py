"""Make tiles to train a promptable network on: small scenes, each a window of the frame.

The frame is the input of serving.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from segclip.types import Array

from .compose import SceneConfig
from .material import Material

FRAME = 800  # px; a scene of 640 x 480 is enlarged to it, for finer edges
PATCH = 16  # px of a cell of the image encoder's map
TILE = 320  # px
# side of a tile in px: tiles per step, probability; large objects need large tiles
SIDES = {320: (2, 0.6), 480: (1, 0.25), 640: (1, 0.15)}
CELL = PATCH // 4  # pixels a logit covers
OBJECTS = 6  # prompted in a tile, at most
MIN_PIXELS = 100
# of the objects in the photo behind a scene that are prompted too; they are many and hard
PHOTO_SHARE = 0.2
PHOTO_PIXELS = 250  # minimum size of an object in a tile of a plain photo


@dataclass(frozen=True, eq=False)
class Tile:
    """A tile and N of its objects.

    pixels: uint8 (T, T, 3), black where the frame's padding would be. masks: bool (N, T, T).
    corner: x, y of the tile in the frame, in px. plain, plain_masks: the same before the tile was
    enlarged, (S, S, 3), (N, S, S).
    """

    pixels: Array
    masks: Array
    corner: tuple[int, int]
    plain: Array
    plain_masks: Array

    @property
    def side(self) -> int:
        """Return T, px."""
        return len(self.pixels)

    @property
    def shares(self) -> torch.Tensor:
        """Return each object's share of each of the decoder's cells.

        float32 (N, 1, T / CELL, T / CELL).
        """
        return F.avg_pool2d(torch.from_numpy(self.masks).float()[:, None], CELL)


def make_tile(seed: int, material: Material, side: int = TILE) -> Tile | None:
    """Make a tile of drawn objects, cut-outs or a photo; None if it has no objects.

    Objects of the photo behind a scene are included.
    """
    rng = np.random.default_rng([seed, 2])
    size = int(rng.choice((side * 640 // FRAME, side)))  # px before it is enlarged
    drawn_scenes = SceneConfig(objects=(2, 7), across=(0.1 * size, 0.75 * size))
    plain, drawn = material.tile(seed, size, drawn_scenes, beyond=0)
    pixels = cv2.resize(plain, (side, side), interpolation=cv2.INTER_LINEAR)
    layers = cv2.resize(drawn, (side, side), interpolation=cv2.INTER_NEAREST)
    if rng.random() < 0.3:  # an image that ends inside the tile, at the bottom or on the right
        end = int(rng.integers(side * 6 // 10, side))
        down = rng.random() < 0.7
        for whole, parts in ((side, (pixels, layers)), (size, (plain, drawn))):
            start = end * whole // side
            beyond = np.s_[start:] if down else np.s_[:, start:]
            parts[0][beyond], parts[1][beyond] = 0, -1
    codes, counts = np.unique(layers, return_counts=True)
    scene = bool((codes >= 0).any())
    behind = rng.random(len(codes)) < PHOTO_SHARE if scene else counts >= PHOTO_PIXELS
    kept = (codes != -1) & (counts >= MIN_PIXELS) & ((codes >= 0) | behind)
    codes = rng.permutation(codes[kept])[:OBJECTS]
    if not len(codes):
        return None
    room = (FRAME - side) // PATCH
    x, y = (int(place) * PATCH for place in rng.integers(0, room + 1, 2))
    return Tile(
        pixels, layers == codes[:, None, None], (x, y), plain, drawn == codes[:, None, None]
    )
