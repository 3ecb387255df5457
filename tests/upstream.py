"""Run ultralytics' own text prompt, with a stand-in for the `clip` package it installs from git at
run time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch

from segclip.proposers.yolo import quiet
from segclip.types import Image, Masks


def install_clip(
    model: torch.nn.Module, preprocess: Callable[..., Any], tokenizer: Callable[..., Any]
) -> None:
    """Let ``import clip`` give an open_clip model, for ``ultralytics.nn.text_model`` imported
    anew.
    """
    clip = ModuleType("clip")
    clip.load = lambda size, device, download_root: (model, preprocess)  # type: ignore[attr-defined]
    clip.tokenize = lambda texts, truncate: tokenizer(texts)  # type: ignore[attr-defined]
    sys.modules["clip"] = clip
    sys.modules.pop("ultralytics.nn.text_model", None)


def remove_clip() -> None:
    """Undo ``install_clip``."""
    sys.modules.pop("clip", None)
    sys.modules.pop("ultralytics.nn.text_model", None)


def elect(image: Image, masks: Masks, texts: Sequence[str]) -> set[int]:
    """Give the rows ultralytics' FastSAM text prompt keeps, of masks handed to it as its own
    results.
    """
    rows = torch.arange(len(masks))
    boxes = torch.column_stack(
        [torch.from_numpy(masks.boxes), torch.ones(len(masks)), rows]
    ).float()
    dense = torch.from_numpy(masks.to_dense().astype(np.uint8))
    names = {int(row): "object" for row in rows}
    bgr = np.ascontiguousarray(image.pixels[..., ::-1])
    with quiet():
        from ultralytics.engine.results import Results
        from ultralytics.models.fastsam import FastSAMPredictor

        predictor = FastSAMPredictor(overrides={"mode": "predict", "save": False, "verbose": False})
        predictor.device = torch.device("cpu")
        chosen = predictor.prompt(
            Results(bgr, "", names, boxes=boxes, masks=dense), texts=list(texts)
        )[0]
    return {int(row) for row in chosen.boxes.cls}
