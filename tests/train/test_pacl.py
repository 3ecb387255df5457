"""Patches aligned with texts point at what a text names, far better than the patches of the CLIP they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segclip.crops import CropPolicy
from segclip.datasets import read_folder
from segclip.encoders import heads
from segclip.encoders.openclip import OpenClip
from segclip.errors import WeightsCorrupt
from segclip.localise import evaluate_heat
from segclip.scoring import DenseScorer
from segclip.types import Array, Image, Masks
from train import contrastive, loop, pacl, shapes
from train.contrastive import Contrastive, Recipe
from train.loop import Loop, Settings
from train.pacl import Pacl, compatibility
from train.start import begin, trained


def test_the_compatibility_is_the_papers() -> None:
    torch.manual_seed(0)
    patches, texts = F.normalize(torch.randn(2, 5, 4), dim=-1), F.normalize(torch.randn(3, 4), dim=-1)
    found = compatibility(patches, texts)
    weights = torch.softmax(pacl.SHARP * patches[1] @ texts[2], dim=0)
    mean = (weights[:, None] * patches[1]).sum(dim=0)
    torch.testing.assert_close(found[1, 2], F.cosine_similarity(mean, texts[2], dim=0))
    torch.testing.assert_close(compatibility(patches[:1], texts), found[:1])  # a batch of one


def test_a_file_that_is_no_head_is_told(tmp_path: Path) -> None:
    assert heads.load(tmp_path) is None
    (tmp_path / heads.FILE).write_bytes(b"nothing")
    with pytest.raises(WeightsCorrupt, match="no patch head"):
        heads.load(tmp_path)


class TwoHalves:
    """See one direction on the left and another on the right."""

    serving = None

    def encode_dense(self, image: Image) -> Array:
        dense = np.zeros((4, 4, 2), np.float32)
        dense[:, :2, 0] = dense[:, 2:, 1] = 1
        return dense


def test_a_dense_region_is_its_inside_less_its_outside() -> None:
    image = Image(np.zeros((40, 40, 3), np.uint8))
    left = np.zeros((40, 40), bool)
    left[:, :20] = True
    masks = Masks.from_dense(np.stack([left, ~left, np.zeros_like(left)]), (40, 40))
    found = DenseScorer(TwoHalves(), CropPolicy()).embed_regions(image, masks)  # type: ignore[arg-type]
    assert np.allclose(found, [[0.7071, -0.7071], [-0.7071, 0.7071], [0.0, 0.0]], atol=1e-3)


@pytest.mark.slow
def test_heat_maps_point_at_the_named_thing(tmp_path: Path) -> None:
    shapes.write(tmp_path / "train", 2000, held_out=100)
    parts = contrastive.parts_of(tmp_path / "train", None, share=0.1, skip_bad=False)
    settings = Settings(epochs=6, batch=32, lr=1e-3, warm_up=30)
    clip = Contrastive(begin("small-vit", None), parts, Recipe(augment="none"), settings)
    loop.start(Loop(clip, tmp_path / "clip", settings, {}), resume=False)
    settings = Settings(epochs=5, batch=32, lr=2e-3, warm_up=30)
    task = Pacl(trained(f"file:{tmp_path / 'clip'}"), parts, Recipe(augment="none"), settings)
    loop.start(Loop(task, tmp_path / "pacl", settings, {}), resume=False)
    samples = read_folder(tmp_path / "train")[-100:]
    encoder = OpenClip(f"file:{tmp_path / 'pacl'}")
    assert encoder.serving.scorer == "dense"
    aligned = evaluate_heat(encoder, samples)
    plain = evaluate_heat(encoder, samples, lambda image: clip_patches(encoder, image))
    assert aligned.pointing >= 0.8
    assert aligned.miou >= plain.miou + 0.2


def clip_patches(encoder: OpenClip, image: Image) -> Array:
    """Project each patch as the CLIP projects its class token."""
    import cv2

    square = cv2.resize(image.pixels, (encoder.image_size,) * 2, interpolation=cv2.INTER_AREA)
    tower = encoder._model.visual
    with torch.inference_mode():
        seen = heads.patches(tower, encoder._pixels(square[None])) @ tower.proj
    return F.normalize(seen[0], dim=-1).numpy()
