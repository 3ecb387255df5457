"""A dual encoder is assembled, trained by the recipe of CLIPs, and served like them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segclip.encoders.openclip import OpenClip, OpenClipOptions
from segclip.errors import BadPrompt, UnknownName
from train import contrastive, dual_encoder, shapes
from train.contrastive import Contrastive, ContrastiveRecipe
from train.engine import loop
from train.engine.loop import Loop, LoopSettings
from train.engine.start import trained
from train.engine.tuning import Tuning


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """Combine the smallest timm tower and our small text tower."""
    shapes.write(tmp_path / "scenes", 60, held_out=12)
    out = tmp_path / "start"
    dual_encoder.main(
        "test_vit", "small", out, size=160, embed_dim=32, vocabulary=tmp_path / "scenes"
    )
    return out


def test_it_is_trained_and_served_like_any_other(start: Path, tmp_path: Path) -> None:
    settings = LoopSettings(epochs=1, batch=16, warm_up=1)
    parts = contrastive.parts_of(tmp_path / "scenes", None, share=0.1, skip_bad=False)
    recipe = ContrastiveRecipe(tuning=Tuning(text_lr=0.1, head_lr=10))
    task = Contrastive(trained(f"file:{start}"), parts, recipe, settings)
    assert sorted({group["lr"] for group in task.groups()}) == pytest.approx([5e-5, 5e-4, 5e-3])
    loop.start(Loop(task, tmp_path / "run", settings, {}), resume=False)
    encoder = OpenClip(f"file:{tmp_path / 'run'}", options=OpenClipOptions(precision="float32"))
    task.network.eval()
    with torch.no_grad():
        images = task.embed_images(torch.from_numpy(task.held_out.pixels)).cpu().numpy()
        texts = task.embed_texts(task.held_out.texts.tokens[:, 0]).cpu().numpy()
    served = encoder.encode_images([item.load().pixels for item in task.held_out.items])
    assert np.allclose(served, images, atol=5e-3)
    assert np.allclose(encoder.encode_texts(task.held_out.texts.texts), texts, atol=5e-3)


def test_invalid_towers_are_reported(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("a.jpg,a dog\n")
    with pytest.raises(UnknownName, match=r"near it: .*resnet"):
        dual_encoder.main(
            "resnet5000", "small", tmp_path / "out", vocabulary=tmp_path / "captions.csv"
        )
    with pytest.raises(BadPrompt, match="--vocabulary"):
        dual_encoder.main("resnet10t", "small", tmp_path / "out")
    assert not (tmp_path / "out").exists()
