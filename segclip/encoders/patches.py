"""Embed the patches of an image in the joint space with PACL's residual patch embedder.

Mukhoti et al. 2023, section 3.2: a patch p becomes W1 p + W3 act(W2 p). The embedder is stored with
the CLIP's weights, as ``patch_head``, and described by ``patch_cfg`` in its configuration.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
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

# networks whose last stages timm can dilate
_TRUNKS = timm.models.resnet.ResNet | timm.models.efficientnet.EfficientNet
_NAMES = {"straight.": "linear.", "bent.": "mlp."}  # of a patch head, by its former names
_FORMER = re.compile(r"(^|\.)(straight\.|bent\.)")
_LONGEST = 8  # maximum aspect ratio of the input; thinner images are squeezed


class PatchHead(nn.Module):
    """Residual embedder of patches.

    width: channels of the tower's patches. side: px of the input's shorter side. stride: px from
    patch to patch, 0 for the tower's own.
    """

    def __init__(self, embed_dim: int, width: int, side: int, stride: int = 0) -> None:
        super().__init__()
        self.side, self.stride = side, stride
        self.linear = nn.Linear(width, embed_dim)  # W1
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(  # the residual W3 act(W2 p)
            nn.Linear(width, embed_dim), nn.GELU(), nn.Linear(embed_dim, embed_dim)
        )

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Embed (B, h, w, C): unit (B, h, w, D)."""
        return F.normalize(self.linear(patches) + self.mlp(self.norm(patches)), dim=-1)

    def start_at(self, projection: torch.Tensor | None) -> None:
        """Initialise with the CLIP's own projection (D, C), if any, and a residual of zero."""
        last = self.mlp[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        nn.init.zeros_(self.linear.bias)
        if projection is not None:
            self.linear.weight.data.copy_(projection)


def with_current_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict with the names of today: older versions stored ``straight``, ``bent``."""
    return {
        _FORMER.sub(lambda found: found[1] + _NAMES[found[2]], str(name)): value
        for name, value in state.items()
    }


class Dense(nn.Module):
    """Dense embedding of an image by a patch head on a copy of a CLIP's tower, perhaps dilated."""

    def __init__(self, tower: nn.Module, head: PatchHead) -> None:
        super().__init__()
        self.tower, self.head = finer(tower, head.stride), head
        self.any_shape = is_convolutional(tower)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed (B, 3, H, W): unit (B, h, w, D)."""
        embedded: torch.Tensor = self.head(encode(self.tower, pixels))
        return embedded

    def fit(self, pixels: Array) -> Array:
        """Resize uint8 (H, W, 3) to the side the head was trained at.

        A transformer's positions are those of one square grid, so it gets a square.
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
    """Return whether a tower accepts images of any shape."""
    inner = tower.trunk if isinstance(tower, TimmModel) else tower
    return isinstance(inner, ModifiedResNet | _TRUNKS)


def encode(tower: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Return the last patches of an open_clip image tower, after its own norm: (B, h, w, C).

    Raises Unsupported for a tower without access to them.
    """
    trunk = getattr(tower, "trunk", None)
    # an EfficientNet's last convolution comes after its last stage
    if isinstance(trunk, timm.models.efficientnet.EfficientNet):
        features: torch.Tensor = trunk.forward_features(pixels)
        return features.permute(0, 2, 3, 1)
    if not hasattr(tower, "forward_intermediates"):
        raise Unsupported(
            f"{type(tower).__name__} has no access to its patches; use one of open_clip's image "
            "towers"
        )
    output: dict[str, Any] = tower.forward_intermediates(
        pixels, indices=1, normalize_intermediates=True, intermediates_only=True
    )
    last: torch.Tensor = output["image_intermediates"][-1]  # (B, C, h, w)
    return last.permute(0, 2, 3, 1)


def finer(tower: nn.Module, stride: int) -> nn.Module:
    """Copy a tower; with ``stride`` the copy's last stages are dilated to so many px per patch.

    That is possible for timm's ResNets and EfficientNets; raises Unsupported for others.
    """
    copied = copy.deepcopy(tower)
    if not stride:
        return copied
    trunk = getattr(tower, "trunk", None)
    if not isinstance(trunk, _TRUNKS) or stride not in (8, 16, 32):
        kinds = "timm's ResNets and EfficientNets, 8, 16 or 32"
        raise Unsupported(f"a stride of {stride} px is for {kinds}; omit it for other towers")
    copied.trunk = timm.create_model(
        trunk.pretrained_cfg["architecture"], num_classes=0, output_stride=stride
    )
    copied.trunk.load_state_dict(trunk.state_dict())
    return copied.to(next(tower.parameters()).device).train(tower.training)


def projection_of(tower: nn.Module) -> torch.Tensor | None:
    """Return the matrix (D, C) that projects pooled patches into the joint space, None without one.

    Applied to each patch, it yields the patch embeddings of the untrained CLIP.
    """
    if isinstance(tower, TimmModel) and isinstance(getattr(tower.head, "proj", None), nn.Linear):
        return tower.head.proj.weight.detach()
    mlp = getattr(getattr(tower, "head", None), "mlp", None)
    if isinstance(tower, TimmModel) and isinstance(mlp, nn.Module):
        return mlp.fc2.weight.detach() @ mlp.fc1.weight.detach()  # roughly, without the activation
    if isinstance(tower, VisionTransformer) and tower.proj is not None:
        return tower.proj.detach().T
    # the result of attention pooling for a single patch, as in MaskCLIP
    if isinstance(tower, ModifiedResNet):
        return tower.attnpool.c_proj.weight.detach() @ tower.attnpool.v_proj.weight.detach()
    return None
