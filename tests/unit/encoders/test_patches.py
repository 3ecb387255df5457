"""Patches of every kind of tower, and the head that embeds them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segclip.encoders import patches
from segclip.encoders.patches import Dense, PatchHead
from segclip.errors import Unsupported
from tests.thin import LONGEST, striped
from train.engine.start import Start, fresh, trained


def head_of(start: Start, width: int, stride: int = 0) -> patches.PatchHead:
    head = patches.PatchHead(start.checkpoint.model_cfg["embed_dim"], width, start.size, stride)
    head.start_at(patches.projection_of(start.model.visual))
    return head


def test_an_untrained_head_is_the_clip_itself() -> None:
    start = fresh("small")
    tower, pixels = start.model.visual.eval(), torch.randn(2, 3, 64, 64)
    head = head_of(start, 512)
    with torch.no_grad():
        # average pooling and W1 commute
        pooled = head.linear(patches.encode(tower, pixels).mean(dim=(1, 2)))
        torch.testing.assert_close(pooled, tower(pixels), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "grid"), [("small", (2, 2)), ("small-vit", (8, 8)), ("small-rn", (2, 2))]
)
def test_every_kind_of_tower_returns_its_patches(model: str, grid: tuple[int, int]) -> None:
    start = fresh(model)
    with torch.no_grad():
        features = patches.encode(start.model.visual.eval(), torch.randn(1, 3, 64, 64))
        embedded = head_of(start, features.shape[-1])(features)
    assert embedded.shape[1:3] == grid
    torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(1, *grid))
    assert patches.projection_of(start.model.visual) is not None


def test_a_finer_tower_takes_smaller_steps_and_only_where_it_can() -> None:
    tower = fresh("small").model.visual.eval()
    with torch.no_grad():
        assert patches.encode(patches.finer(tower, 8), torch.randn(1, 3, 96, 64)).shape[1:3] == (
            12,
            8,
        )
    with pytest.raises(Unsupported, match="stride of 8 px is for timm's ResNets"):
        patches.finer(fresh("small-vit").model.visual, 8)


def test_the_shipped_towers_features_fit_its_head_at_any_stride() -> None:
    """EfficientNets' last convolution comes after the stages whose outputs timm names."""
    tower = trained("mini-clip").model.visual.eval()
    pixels = torch.randn(1, 3, 144, 96)
    with torch.no_grad():
        coarse, fine = (
            patches.encode(tower, pixels),
            patches.encode(patches.finer(tower, 16), pixels),
        )
        pooled = tower.head(coarse.mean(dim=(1, 2)))
        torch.testing.assert_close(pooled, tower(pixels))
    assert fine.shape[1:3] == (9, 6)
    projection = patches.projection_of(tower)
    assert projection is not None
    assert projection.shape == (pooled.shape[1], coarse.shape[3])


def test_images_keep_their_shape_where_the_tower_lets_them() -> None:
    wide = np.zeros((50, 100, 3), np.uint8)
    for name, width, shape in (("small", 512, (64, 128, 3)), ("small-vit", 192, (64, 64, 3))):
        start = fresh(name)
        assert patches.Dense(start.model.visual, head_of(start, width)).fit(wide).shape == shape


@pytest.mark.parametrize("size", LONGEST)
def test_a_patch_head_for_any_shape_squeezes_thin_images(size: tuple[int, int]) -> None:
    start = fresh("small")
    head = PatchHead(start.checkpoint.model_cfg["embed_dim"], 512, 32)
    dense = Dense(start.model.visual, head)
    assert max(dense.fit(striped(size).pixels).shape) == 256
