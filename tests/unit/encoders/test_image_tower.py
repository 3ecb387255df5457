"""Optimised towers compute the same embedding; towers with other pooling are left unchanged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer

from segclip.encoders.image_tower import ClassTokenBlock, streamline

SIZES: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "width": 24,
    "layers": 3,
    "heads": 2,
    "mlp_ratio": 4.0,
}


def tower(**settings: Any) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(**SIZES, output_dim=16, **settings).eval()


@pytest.mark.parametrize(
    "settings", [{}, {"final_ln_after_pool": True}, {"ls_init_value": 0.3}, {"no_ln_pre": True}]
)
def test_the_embedding_stays_the_same(settings: dict[str, Any]) -> None:
    model, pixels = tower(**settings), torch.rand(4, 3, 32, 32)
    with torch.inference_mode():
        whole = model(pixels)
        streamline(model)
        trimmed = model(pixels)
    assert isinstance(model.transformer.resblocks[-1], ClassTokenBlock)
    assert torch.allclose(trimmed, whole, atol=1e-5)
    assert whole.std() > 0.01


@pytest.mark.parametrize(
    "settings", [{"pool_type": "avg"}, {"attentional_pool": True}, {"qk_norm": True}]
)
def test_towers_that_need_every_token_stay_unchanged(settings: dict[str, Any]) -> None:
    model = tower(**settings)
    before = model.transformer.resblocks[-1]
    streamline(model)
    assert model.transformer.resblocks[-1] is before


def with_statistics(model: torch.nn.Module) -> torch.nn.Module:
    """Set random statistics and weights in the batch norms."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.running_var, module.weight):
                torch.nn.init.uniform_(values, 0.5, 2)
            for values in (module.running_mean, module.bias):
                torch.nn.init.normal_(values, std=0.3)
    return model.eval()


@pytest.mark.parametrize(
    "model",
    [
        TimmModel("resnet10t", 16, image_size=64, pool="avg", proj="linear", pretrained=False),
        TimmModel("resnet26d", 16, image_size=64, pool="avg", proj="linear", pretrained=False),
        TimmModel(
            "tf_efficientnet_lite0", 16, image_size=64, pool="avg", proj="mlp", pretrained=False
        ),
        ModifiedResNet(layers=(1, 2, 1, 1), output_dim=16, heads=4, image_size=64, width=16),
    ],
    ids=["resnet10t", "resnet26d", "efficientnet_lite0", "openai"],
)
def test_batch_norms_are_fused_into_convolutions(model: torch.nn.Module) -> None:
    with_statistics(model)
    pixels = torch.rand(4, 3, 64, 64)
    with torch.inference_mode():
        whole = model(pixels)
        streamline(model)
        fused = model(pixels)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert torch.allclose(fused, whole, rtol=1e-3, atol=1e-4)
    assert whole.std() > 0.01


def test_a_network_with_another_order_keeps_its_batch_norms() -> None:
    model = TimmModel(
        "mobilenetv3_small_050", 16, image_size=64, pool="avg", proj="linear", pretrained=False
    ).eval()
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    streamline(model)
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()) == norms > 0
