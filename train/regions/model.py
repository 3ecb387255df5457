"""The mini encoder: its two towers, its preprocessing, and the words around texts."""

from __future__ import annotations

from typing import Any

from ..engine.pretrained import MEAN, STD, TRUNK

SIZE = 144  # px of a crop in serving
EMBED = 384  # of MiniLM
WIDE = 768  # of the model that ships: a head of open_clip's has twice as many hidden units
MODEL: dict[str, Any] = {
    "embed_dim": EMBED,
    "vision_cfg": {
        "timm_model_name": TRUNK,
        "timm_pool": "avg",
        "timm_proj": "mlp",
        "image_size": SIZE,
    },
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3},
}
SHIPPED: dict[str, Any] = MODEL | {"embed_dim": WIDE}
PREPROCESS: dict[str, Any] = {
    "mean": list(MEAN),
    "std": list(STD),
    "interpolation": "bicubic",
    "resize_mode": "squash",
}
BACKGROUNDS = ("background", "something else")
TEMPLATES = ("{}", "a {}", "the {}", "a photo of a {}", "a picture of a {}", "one {}")
