"""Tiles of the promptable network are windows of its frame."""

from __future__ import annotations

import numpy as np
import torch

from tests.train.test_sam import GLYPHS
from train.scenes.material import Material
from train.scenes.tiles import FRAME, PATCH, TILE, make_tile


def test_a_tile_is_a_window_of_the_frame() -> None:
    for seed in range(8):
        tile = make_tile(seed, Material(GLYPHS))
        assert tile is not None
        assert tile.pixels.shape == (TILE, TILE, 3)
        assert tile.masks.any(axis=(1, 2)).all()
        assert (np.array(tile.corner) % PATCH == 0).all()
        assert max(tile.corner) + TILE <= FRAME
        assert tile.shares.shape == (len(tile.masks), 1, TILE // 4, TILE // 4)
        torch.testing.assert_close(
            tile.shares.sum(dim=(1, 2, 3)) * 16, torch.from_numpy(tile.masks).sum((1, 2)).float()
        )
