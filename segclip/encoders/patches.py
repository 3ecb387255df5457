"""Embed the patches of a whole image in the texts' space: PACL's residual embedder (Mukhoti et al.
2023, section 3.2).

A patch p becomes W1 p + W3 act(W2 p). It lies in the CLIP's own weights, as ``patch_head``, told of
by ``patch_cfg``.
"""

from __future__ import annotations

import copy
from typing import Any

import cv2
import numpy as np
import timm
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from ..errors import Unsupported
from ..types import Array

_TRUNKS = (
    timm.models.resnet.ResNet | timm.models.efficientnet.EfficientNet
)  # whose last stages timm can dilate
# longer side over the shorter one, of what a network of any shape looks at: what is thinner is
# squeezed
_LONGEST = 8


class PatchHead(nn.Module):
    """Embed patches.

    width: of the tower's patches. side: px an image's shorter side is brought to. stride: px from
    patch to patch, 0 for the tower's own.
    """

    def __init__(self, embed_dim: int, width: int, side: int, stride: int = 0) -> None:
        super().__init__()
        self.side, self.stride = side, stride
        self.straight = nn.Linear(width, embed_dim)
        self.norm = nn.LayerNorm(width)
        self.bent = nn.Sequential(
            nn.Linear(width, embed_dim), nn.GELU(), nn.Linear(embed_dim, embed_dim)
        )

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Embed (B, h, w, C): unit (B, h, w, D)."""
        return F.normalize(self.straight(patches) + self.bent(self.norm(patches)), dim=-1)

    def start_at(self, projection: torch.Tensor | None) -> None:
        """Begin as the CLIP's own projection (D, C) of each patch, where it has one; the residual
        begins at zero.
        """
        last = self.bent[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        nn.init.zeros_(self.straight.bias)
        if projection is not None:
            self.straight.weight.data.copy_(projection)


class Dense(nn.Module):
    """See a whole image with a CLIP's tower and patch head; the tower is a copy whose last steps
    may be made finer.
    """

    def __init__(self, tower: nn.Module, head: PatchHead) -> None:
        super().__init__()
        self.tower, self.head = finer(tower, head.stride), head
        self.any_shape = is_convolutional(tower)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed (B, 3, H, W): unit (B, h, w, D)."""
        embedded: torch.Tensor = self.head(look(self.tower, pixels))
        return embedded

    def fit(self, pixels: Array) -> Array:
        """Bring uint8 (H, W, 3) to the side the head was trained at; a transformer knows one square
        grid.
        """
        side, (height, width) = self.head.side, pixels.shape[:2]
        scale = side / min(height, width)
        longest = side * _LONGEST
        shaped = min(round(width * scale), longest), min(round(height * scale), longest)
        size = shaped if self.any_shape else (side, side)
        return np.ascontiguousarray(
            cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        )


def is_convolutional(tower: nn.Module) -> bool:
    """Tell whether a tower sees images of any shape."""
    inner = tower.trunk if isinstance(tower, TimmModel) else tower
    return isinstance(inner, ModifiedResNet | _TRUNKS)


def look(tower: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Give an open_clip image tower's last patches, after its own norm: (B, h, w, C). Raises
    Unsupported.
    """
    trunk = getattr(tower, "trunk", None)
    if isinstance(
        trunk, timm.models.efficientnet.EfficientNet
    ):  # its last convolution comes after its last stage
        features: torch.Tensor = trunk.forward_features(pixels)
        return features.permute(0, 2, 3, 1)
    if not hasattr(tower, "forward_intermediates"):
        raise Unsupported(
            f"{type(tower).__name__} does not give its patches; use one of open_clip's image towers"
        )
    seen: dict[str, Any] = tower.forward_intermediates(
        pixels, indices=1, normalize_intermediates=True, intermediates_only=True
    )
    last: torch.Tensor = seen["image_intermediates"][-1]  # (B, C, h, w)
    return last.permute(0, 2, 3, 1)


def finer(tower: nn.Module, stride: int) -> nn.Module:
    """Copy a tower; timm's ResNets and EfficientNets take ``stride`` px a patch, their last stages
    dilated.
    """
    copied = copy.deepcopy(tower)
    if not stride:
        return copied
    trunk = getattr(tower, "trunk", None)
    if not isinstance(trunk, _TRUNKS) or stride not in (8, 16, 32):
        kinds = "timm's ResNets and EfficientNets, 8, 16 or 32"
        raise Unsupported(f"a stride of {stride} px is for {kinds}; leave it out for another tower")
    copied.trunk = timm.create_model(
        trunk.pretrained_cfg["architecture"], num_classes=0, output_stride=stride
    )
    copied.trunk.load_state_dict(trunk.state_dict())
    return copied.to(next(tower.parameters()).device).train(tower.training)


def projection_of(tower: nn.Module) -> torch.Tensor | None:
    """Give what brings pooled patches into the joint space (D, C), where that is one matrix: CLIP's
    patches by it.
    """
    if isinstance(tower, TimmModel) and isinstance(getattr(tower.head, "proj", None), nn.Linear):
        return tower.head.proj.weight.detach()
    if isinstance(tower, TimmModel) and isinstance(
        mlp := getattr(tower.head, "mlp", None), nn.Module
    ):
        return (
            mlp.fc2.weight.detach() @ mlp.fc1.weight.detach()
        )  # what its activation lets through, near enough
    if isinstance(tower, VisionTransformer) and tower.proj is not None:
        return tower.proj.detach().T
    if isinstance(
        tower, ModifiedResNet
    ):  # of attention pooling, what one patch alone would become: MaskCLIP's way
        return tower.attnpool.c_proj.weight.detach() @ tower.attnpool.v_proj.weight.detach()
    return None
