"""EfficientNet-Lite0 as the trunk of a YOLO segmentation network, of ultralytics' own convolutions, which it fuses.

EfficientNet, Tan and Le 2019, https://arxiv.org/abs/1905.11946; "lite" leaves out what small devices are slow at.
"""

from __future__ import annotations

from typing import Any

import torch

STAGES = (  # kernel, stride, channels out, blocks, widening
    (3, 1, 16, 1, 1),
    (3, 2, 24, 2, 6),
    (5, 2, 40, 2, 6),
    (3, 2, 80, 3, 6),
    (5, 1, 112, 3, 6),
    (5, 2, 192, 4, 6),
    (3, 1, 320, 1, 6),
)
TAKEN = (0, 1, 2, 4, 6)  # the stages whose maps are handed on, of strides 2, 4, 8, 16 and 32
ARCHITECTURE: dict[str, Any] = {  # YOLOv8n-seg from layer 10 on
    "nc": 1,
    "scales": {"n": [0.33, 0.25, 1024]},
    "scale": "n",
    "backbone": [
        [-1, 1, "Lite0", []],
        [0, 1, "Index", [16, 0]],
        [0, 1, "Index", [24, 1]],
        [0, 1, "Index", [40, 2]],
        [-1, 1, "Conv", [256, 1, 1]],
        [0, 1, "Index", [112, 3]],
        [-1, 1, "Conv", [512, 1, 1]],
        [0, 1, "Index", [320, 4]],
        [-1, 1, "Conv", [1024, 1, 1]],
        [-1, 1, "SPPF", [1024, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 6], 1, "Concat", [1]],
        [-1, 3, "C2f", [512]],
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 4], 1, "Concat", [1]],
        [-1, 3, "C2f", [256]],
        [-1, 1, "Conv", [256, 3, 2]],
        [[-1, 12], 1, "Concat", [1]],
        [-1, 3, "C2f", [512]],
        [-1, 1, "Conv", [512, 3, 2]],
        [[-1, 9], 1, "Concat", [1]],
        [-1, 3, "C2f", [1024]],
        [[15, 18, 21], 1, "Segment", [1, 32, 256]],
    ],
}


class Block(torch.nn.Module):
    """Widen, convolve each channel by itself, narrow; beside it the input where the shape stays."""

    def __init__(self, given: int, channels: int, kernel: int, stride: int, widening: int) -> None:
        super().__init__()
        from ultralytics.nn.modules import Conv

        width = given * widening
        self.widen = Conv(given, width, 1, act=torch.nn.ReLU6()) if widening > 1 else torch.nn.Identity()
        self.spread = Conv(width, width, kernel, stride, g=width, act=torch.nn.ReLU6())
        self.narrow = Conv(width, channels, 1, act=False)
        self.stays = stride == 1 and given == channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float32 (B, channels, H / stride, W / stride)."""
        made: torch.Tensor = self.narrow(self.spread(self.widen(x)))
        return x + made if self.stays else made


class Lite0(torch.nn.Module):
    """Return the maps of strides 2, 4, 8, 16 and 32 of float32 (B, 3, H, W) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        from ultralytics.nn.modules import Conv

        self.stem = Conv(3, 32, 3, 2, act=torch.nn.ReLU6())
        stages, given = [], 32
        for kernel, stride, channels, blocks, widening in STAGES:
            chain = []
            for block in range(blocks):
                chain.append(Block(given, channels, kernel, stride if block == 0 else 1, widening))
                given = channels
            stages.append(torch.nn.Sequential(*chain))
        self.stages = torch.nn.ModuleList(stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return 16, 24, 40, 112 and 320 channels."""
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [maps[stage] for stage in TAKEN]
