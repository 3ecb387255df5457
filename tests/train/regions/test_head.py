"""The head that ships begins as the narrow one, with a classifier's classes beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segclip.encoders import Serving, checkpoints
from segclip.encoders.openclip import OpenClip
from segclip.scoring.crops import CropPolicy
from train.regions.head import CLASSIFIER, shipped, widen
from train.regions.model import BACKGROUNDS, EMBED, MODEL, PREPROCESS, SHIPPED, WIDE


def test_a_wider_head_embeds_as_the_narrow_one_and_adds_confident_classes() -> None:
    torch.manual_seed(0)
    model = checkpoints.make_model(MODEL).eval()
    features, names = torch.rand(64, 1280), F.normalize(torch.randn(10, EMBED), dim=-1)
    classifier = torch.nn.Linear(1280, 10)
    torch.nn.init.normal_(classifier.weight, std=0.3)
    mlp = model.visual.head.mlp
    head = widen(mlp, classifier, names, features, 2 * EMBED + 10)
    with torch.no_grad():
        before = mlp.fc2(F.gelu(mlp.fc1(features)))
        added = head(features) - before
        known = F.gelu(classifier(features) - 5) @ names
    assert torch.allclose(added / added.norm(), known / known.norm(), atol=1e-4)
    assert float(added.norm(dim=1).mean()) == pytest.approx(
        CLASSIFIER * float(before.norm(dim=1).mean()), rel=1e-3
    )
    with pytest.raises(ValueError, match="no room"):
        widen(mlp, classifier, names, features, 10)


def test_the_shipped_model_equals_its_parts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = checkpoints.make_model(MODEL).eval()
    classifier = torch.nn.Linear(1280, 1000)
    names = F.normalize(torch.randn(1000, EMBED), dim=-1)
    head = widen(model.visual.head.mlp, classifier, names, torch.rand(8, 1280), 2 * WIDE)
    serving = Serving(CropPolicy(), ("{}",), BACKGROUNDS)
    checkpoints.save(
        shipped(model, head).eval(),
        tmp_path,
        model_cfg=SHIPPED,
        preprocess_cfg=PREPROCESS,
        serving=serving,
    )
    encoder = OpenClip(f"file:{tmp_path}")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 144, 144, 3), np.uint8)
    with torch.inference_mode():
        given = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128
        wanted = F.normalize(head(model.visual.trunk(given)), dim=-1).numpy()
    found = encoder.encode_images(pixels)
    assert found.shape == (2, WIDE)
    assert np.allclose(found[:, :EMBED], wanted, atol=5e-3)  # weights are stored in half precision
    assert not found[:, EMBED:].any()
