"""The recipe of the mini CLIP: texts, crops, losses; it learns, stops, resumes and serves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from segclip.encoders import checkpoints
from segclip.encoders.openclip import OpenClip
from segclip.types import Array
from train import region_features
from train.engine.pretrained import load_classifier
from train.region_features import FeatureTable
from train.region_text import RegionTextRecipe, RegionTextRun
from train.regions.crop_store import BACKGROUND, Crop, CropStore, Shards
from train.regions.model import BACKGROUNDS, EMBED, MODEL, SIZE

COLOURS = {0: (220, 30, 30), 1: (30, 220, 30), BACKGROUND: (128, 128, 128)}


def flat_crops(count: int) -> list[Crop]:
    """Make flat crops of two colours, and grey background."""
    rng = np.random.default_rng(0)
    crops = []
    for number in range(count):
        label = (0, 1, BACKGROUND)[number % 3]
        noisy = np.array(COLOURS[label]) + rng.normal(0, 20, (64, 64, 3))
        pixels = np.clip(noisy, 0, 255).astype(np.uint8)
        crops.append(Crop(pixels, np.full((64, 64), 255, np.uint8), label))
    return crops


def vocabulary(folder: Path) -> Path:
    """Write an untrained text tower, and a vocabulary with random targets."""
    folder.mkdir()
    torch.manual_seed(0)
    model = checkpoints.make_model(MODEL)
    state = {
        n: v.contiguous().clone()
        for n, v in model.state_dict().items()
        if not n.startswith("visual.")
    }
    safetensors.torch.save_file(state, folder / "text.safetensors")
    texts = ["ruby", "leaf", "stone"]
    targets: Array = np.eye(3, EMBED, dtype=np.float16)
    np.save(folder / "targets.npy", targets)
    (folder / "texts.json").write_text(json.dumps({"texts": texts, "named": 2}))
    return folder


@pytest.mark.slow
def test_a_run_learns_resumes_and_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crops, features, text = tmp_path / "crops", tmp_path / "features", vocabulary(tmp_path / "text")
    Shards(crops, "drawn").write(flat_crops(30))
    classes: list[dict[str, Any]] = [
        {"texts": [name], "colour": "", "synset": None, "group": "drawn"}
        for name in ("ruby", "leaf")
    ]
    classes.append({"texts": ["tench"], "colour": "", "synset": 1440764, "group": "imagenet"})
    (crops / "classes.json").write_text(
        json.dumps({"classes": classes, "offsets": {"drawn": 0, "imagenet": 2}})
    )
    features.mkdir()
    store = CropStore(crops, "drawn")
    region_features.extract(
        store, FeatureTable(features, "drawn", 30), load_classifier(), 1, served=False, taught=False
    )
    recipe = RegionTextRecipe(minutes=0.25, batch=16, warm_up=5)
    run = RegionTextRun(crops, features, tmp_path / "run", text, recipe)
    for leg in range(1, 9):  # a busy machine needs more of them
        run.recipe = replace(recipe, minutes=0.25 * leg)
        run.train()
        if run.state.step >= 30:
            break
    run.state.keep()
    resumed = RegionTextRun(crops, features, tmp_path / "run", text, recipe)
    resumed.resume()
    assert (resumed.state.step, resumed.state.spent) == (run.state.step, run.state.spent)
    assert torch.equal(resumed.model.text_projection, run.model.text_projection)
    resumed.export(tmp_path / "out")
    encoder = OpenClip(f"file:{tmp_path / 'out'}")
    assert encoder.serving.backgrounds == BACKGROUNDS
    assert encoder.serving.policy.views[0].stretch
    red = np.full((1, SIZE, SIZE, 3), COLOURS[0], np.uint8)
    ruby, leaf = (encoder.encode_images(red) @ encoder.encode_texts(["ruby", "leaf"]).T)[0]
    assert ruby > leaf
