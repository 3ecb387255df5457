"""The "simple CLIP" of tutorials: a timm image tower and a transformers text tower, projected.

It has the interface of open_clip's models (``visual``, ``encode_image``, ``encode_text``,
``logit_scale``), so it is trained and served by the same code. The text tower's own configuration
is in the checkpoint's config.json.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from open_clip.timm_model import TimmModel
from torch import nn

from ..errors import Unsupported

POOLINGS = ("mean", "cls")


class Projection(nn.Module):
    """Projection of a tower's features into the joint space: linear, then a residual layer."""

    def __init__(self, width: int, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, embed_dim)
        self.more = nn.Sequential(nn.GELU(), nn.Linear(embed_dim, embed_dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Project (B, W) to (B, D)."""
        projected = self.linear(features)
        return self.norm(projected + self.more(projected))


class ImageSide(nn.Module):
    """Image embedding by any of timm's networks."""

    def __init__(self, embed_dim: int, vision_cfg: dict[str, Any]) -> None:
        super().__init__()
        size = vision_cfg["image_size"]
        pool = vision_cfg.get("timm_pool", "avg")
        name = vision_cfg["timm_model_name"]
        pretrained = bool(vision_cfg.get("timm_model_pretrained"))
        self.tower = TimmModel(
            name, embed_dim, image_size=size, pool=pool, proj="none", pretrained=pretrained
        )
        self.head = Projection(
            self.tower.trunk.num_features, embed_dim, vision_cfg.get("dropout", 0.1)
        )
        self.image_size = self.tower.image_size

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed (B, 3, S, S): (B, D)."""
        return self.head(self.tower(pixels))


class TextSide(nn.Module):
    """Text embedding by any of transformers' encoders, pooled over all tokens or at the first."""

    def __init__(self, embed_dim: int, text_cfg: dict[str, Any]) -> None:
        super().__init__()
        transformers = _transformers()
        described = {
            name: value for name, value in text_cfg["hf_config"].items() if name != "auto_map"
        }
        config = transformers.AutoConfig.for_model(**described)
        self.tower = transformers.AutoModel.from_config(config, trust_remote_code=False)
        self.padding = config.pad_token_id or 0
        self.pooling = text_cfg.get("pooling", "mean")
        if self.pooling not in POOLINGS:
            raise ValueError(
                f"unknown pooling {self.pooling!r}; choose one of {', '.join(POOLINGS)}"
            )
        self.head = Projection(config.hidden_size, embed_dim, text_cfg.get("dropout", 0.1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed token ids (T, L): (T, D); padding common to all texts is skipped."""
        mask = tokens != self.padding  # (T, L)
        length = max(1, int(mask.any(dim=0).sum()))
        mask = mask[:, :length]
        output = self.tower(input_ids=tokens[:, :length], attention_mask=mask.long())
        hidden = output.last_hidden_state
        if self.pooling == "cls":
            return self.head(hidden[:, 0])
        weight = mask[..., None].to(hidden.dtype)
        return self.head((hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1))


class DualEncoder(nn.Module):
    """Both towers and the scale of their cosines."""

    def __init__(
        self, embed_dim: int, vision_cfg: dict[str, Any], text_cfg: dict[str, Any]
    ) -> None:
        super().__init__()
        self.visual = ImageSide(embed_dim, vision_cfg)
        self.text = TextSide(embed_dim, text_cfg)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.logit_bias = None  # open_clip's loader reads it

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed (B, 3, S, S), not normalised: (B, D)."""
        embedded: torch.Tensor = self.visual(pixels)
        return embedded

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed (T, L), not normalised: (T, D)."""
        embedded: torch.Tensor = self.text(tokens)
        return embedded


def known_config(name: str, *, local_files_only: bool) -> Any:
    """Fetch the configuration of a text tower of the Hugging Face hub.

    Raises ValueError for one that comes with code, OSError when it is not on this machine and may
    not be downloaded.
    """
    config = _transformers().AutoConfig.from_pretrained(
        name, trust_remote_code=False, local_files_only=local_files_only
    )
    if getattr(config, "auto_map", None):
        raise ValueError(f"the text tower {name!r} needs code of its own, which is never run")
    return config


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise Unsupported(
            "a dual encoder's text tower needs transformers: pip install transformers"
        ) from None
    return transformers
