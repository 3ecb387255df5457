"""Build a small, randomly initialised open_clip model in segclip's folder format: real code paths
in milliseconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from segclip.encoders import Serving
from segclip.encoders.checkpoints import make_model
from segclip.encoders.openclip import OpenClipOptions, save
from segclip.scoring.crops import CropPolicy, View

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
SERVING = Serving(CropPolicy((View(2.0, "white", 1.0),)), ("one {}",), ("nothing",), 0.25, True)
FLOAT32 = OpenClipOptions(precision="float32")
PREPROCESS_CFG: dict[str, Any] = {
    "size": 32,
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.4],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def save_small_clip(
    folder: Path,
    *,
    serving: Serving = Serving(),
    resize_mode: str = "shortest",
    **changes: Any,
) -> torch.nn.Module:
    """Save a model of MODEL_CFG, with ``changes`` at its top level, and give it as float32."""
    model_cfg = {**MODEL_CFG, **changes}
    preprocess_cfg = {**PREPROCESS_CFG, "resize_mode": resize_mode}
    torch.manual_seed(0)
    model = make_model(model_cfg).eval()
    save(model, folder, model_cfg=model_cfg, preprocess_cfg=preprocess_cfg, serving=serving)
    return model
