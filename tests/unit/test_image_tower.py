"""The last block for the class token alone: the same embedding; towers that pool otherwise are left whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from open_clip.transformer import VisionTransformer

from segclip.encoders.image_tower import ClassTokenBlock, trim

SIZES: dict[str, Any] = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 3, "heads": 2, "mlp_ratio": 4.0}


def tower(**settings: Any) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(**SIZES, output_dim=16, **settings).eval()


@pytest.mark.parametrize("settings", [{}, {"final_ln_after_pool": True}, {"ls_init_value": 0.3}, {"no_ln_pre": True}])
def test_the_embedding_stays_the_same(settings: dict[str, Any]) -> None:
    model, pixels = tower(**settings), torch.rand(4, 3, 32, 32)
    with torch.inference_mode():
        whole = model(pixels)
        trim(model)
        trimmed = model(pixels)
    assert isinstance(model.transformer.resblocks[-1], ClassTokenBlock)
    assert torch.allclose(trimmed, whole, atol=1e-5)
    assert whole.std() > 0.01


@pytest.mark.parametrize("settings", [{"pool_type": "avg"}, {"attentional_pool": True}, {"qk_norm": True}])
def test_towers_that_need_every_token_stay_whole(settings: dict[str, Any]) -> None:
    model = tower(**settings)
    before = model.transformer.resblocks[-1]
    trim(model)
    assert model.transformer.resblocks[-1] is before
