"""Stored crops are varied, and their features are those of the whole network."""

from __future__ import annotations

import numpy as np
import torch

from segclip.encoders import checkpoints
from tests.train.test_region_text import flat_crops
from train import region_text
from train.engine.pretrained import load_classifier
from train.region_features import first_layers, normalised, vary
from train.regions.crop_store import STORED, Crop
from train.regions.model import MODEL


def test_varied_crops_keep_the_object_visible() -> None:
    pixels, mask = np.zeros((STORED, STORED, 3), np.uint8), np.zeros((STORED, STORED), np.uint8)
    third = np.s_[STORED // 3 : 2 * STORED // 3, STORED // 3 : 2 * STORED // 3]
    pixels[third], mask[third] = 255, 255
    rng = np.random.default_rng(1)
    for _ in range(20):
        crop = vary(rng, Crop(pixels, mask, 0), 64)
        assert crop.shape == (64, 64, 3)
        assert crop[28:36, 28:36].mean() > 120


def test_first_and_last_layers_are_the_whole_network() -> None:
    """The stored features and the trained layers together are the served tower."""
    model = checkpoints.make_model(MODEL)
    trunk = {
        n: v for n, v in load_classifier().state_dict().items() if not n.startswith("classifier")
    }
    model.visual.trunk.load_state_dict(trunk)
    model.eval()
    pixels = normalised([crop.pixels for crop in flat_crops(2)])
    with torch.inference_mode():
        features = first_layers(model.visual.trunk, pixels)
        assert torch.allclose(
            region_text.last_layers(model.visual, features), model.visual(pixels), atol=1e-5
        )
