"""OpenClip against open_clip itself: the real architectures, random weights, the real file format,
float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import PIL.Image
import pytest
import safetensors.torch
import torch

from segclip.encoders.openclip import OpenClip, OpenClipOptions

pytestmark = pytest.mark.parity

TEXTS = ["cat", "a photo of two red dogs on a blue sofa.", "a text " * 60]


@pytest.mark.parametrize("name", ["ViT-B-32", pytest.param("ViT-B-16", marks=pytest.mark.slow)])
def test_embeddings_are_open_clips(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    safetensors.torch.save_file(model.eval().state_dict(), tmp_path / "open_clip_model.safetensors")
    ours = OpenClip(
        f"{name}/file:{tmp_path}/open_clip_model.safetensors",
        options=OpenClipOptions(precision="float32"),
    )

    rng = np.random.default_rng(0)
    crops = [
        rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        for size in ((224, 224), (120, 300), (64, 31))
    ]
    tokens = open_clip.get_tokenizer(name)(TEXTS)
    with torch.inference_mode():
        pixels = torch.stack([preprocess(PIL.Image.fromarray(crop)) for crop in crops])
        images = model.encode_image(pixels, normalize=True).numpy()
        short = model.encode_text(tokens[:2], normalize=True).numpy()
        long = model.encode_text(tokens[2:], normalize=True).numpy()

    assert ours.encode_images(crops) == pytest.approx(images, abs=1e-4)
    assert ours.encode_images(crops[0][None]) == pytest.approx(images[:1], abs=1e-4)
    assert ours.encode_texts(TEXTS[:2]) == pytest.approx(
        short, abs=1e-5
    )  # encoded only up to the longest end token
    assert ours.encode_texts(TEXTS[2:]) == pytest.approx(long, abs=1e-5)
    assert ours.logit_scale == pytest.approx(model.logit_scale.exp().item())
