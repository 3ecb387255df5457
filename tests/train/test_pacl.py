"""Patches are aligned with texts as in PACL, starting from the CLIP's own, and are served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segclip.encoders import patches
from segclip.encoders.openclip import OpenClip, OpenClipOptions
from segclip.errors import Unsupported
from segclip.evaluation import datasets
from segclip.evaluation.localise import evaluate_heat
from segclip.loading import load
from segclip.scoring.scorers import CropScorer, DenseScorer
from train import contrastive, few, pacl, shapes
from train.contrastive import ContrastiveRecipe
from train.engine import loop, losses
from train.engine.loop import Loop, LoopSettings
from train.engine.start import begin, fresh
from train.pacl import Grid, Pacl, compatibility
from train.scenes import glyphs


def test_the_compatibility_is_the_papers() -> None:
    torch.manual_seed(0)
    cells, texts = F.normalize(torch.randn(2, 5, 4), dim=-1), F.normalize(torch.randn(3, 4), dim=-1)
    found = compatibility(cells, texts)
    weights = torch.softmax(pacl.SHARP * cells[1] @ texts[2], dim=0)
    mean = (weights[:, None] * cells[1]).sum(dim=0)
    torch.testing.assert_close(found[1, 2], F.cosine_similarity(mean, texts[2], dim=0))
    torch.testing.assert_close(compatibility(cells[:1], texts), found[:1])  # a batch of one


def test_a_run_is_served_by_its_patches(tmp_path: Path) -> None:
    shapes.write(tmp_path / "scenes", 24, held_out=8)
    parts = contrastive.parts_of(tmp_path / "scenes", None, share=0.1, skip_bad=False)
    settings = LoopSettings(epochs=1, batch=8, lr=3e-3, warm_up=1)
    start = begin("small", None)
    before = {name: value.clone() for name, value in start.model.state_dict().items()}
    task = Pacl(start, parts, ContrastiveRecipe(augment="none", side=96), settings, Grid(16))
    loop.start(Loop(task, tmp_path / "run", settings, {}), resume=False)
    assert all(
        torch.equal(value.cpu(), before[name]) for name, value in start.model.state_dict().items()
    )
    encoder = OpenClip(f"file:{tmp_path / 'run'}", options=OpenClipOptions(precision="float32"))
    assert encoder.serving.scorer == "dense"
    served = encoder.encode_dense(task.held_out.items[0].load())
    task.network.eval()
    with torch.no_grad():
        expected = (
            task.network(task._encode(torch.from_numpy(task.held_out.pixels[:1])))[0].cpu().numpy()
        )
    assert served.shape == (6, 6, 256)
    assert np.allclose(served, expected, atol=5e-3)  # matrices are stored as float16
    # the CLIP itself is unchanged
    whole = encoder.encode_images([task.held_out.items[0].load().pixels])
    assert whole.shape == (1, 256)
    assert isinstance(load("mini", f"file:{tmp_path / 'run'}").scorer, DenseScorer)
    assert isinstance(load("mini", f"file:{tmp_path / 'run'}", policy="keep").scorer, CropScorer)


def test_every_image_matches_the_backgrounds() -> None:
    torch.manual_seed(0)
    by_image, by_text = torch.randn(3, 5), torch.randn(5, 3)
    rows = torch.arange(3)
    right = torch.eye(3, 5)
    right[:, 3:] = 1
    wanted = F.cross_entropy(by_image, right / right.sum(1, keepdim=True))
    wanted = wanted + F.cross_entropy(by_text, right.T / right.T.sum(1, keepdim=True))
    found = losses.both_ways(by_image, by_text, losses.Keys(rows, rows, rows), common=2)
    torch.testing.assert_close(found, wanted / 2)


def test_the_tower_encodes_unchanged_images_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes.write(tmp_path / "scenes", 24, held_out=8)
    parts = contrastive.parts_of(tmp_path / "scenes", None, share=0.1, skip_bad=False)
    settings = LoopSettings(epochs=2, batch=8, warm_up=1)
    encoded: list[int] = []
    encode = patches.encode

    def counted(tower: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixels))
        return encode(tower, pixels)

    monkeypatch.setattr(patches, "encode", counted)
    for augment, most, times in (
        ("none", pacl.MEMORY, 1),
        ("light", pacl.MEMORY, 2),
        ("none", 0, 2),
    ):
        monkeypatch.setattr(pacl, "MEMORY", most)
        task = Pacl(
            begin("small", None), parts, ContrastiveRecipe(augment=augment), settings, Grid(16, 8)
        )
        encoded.clear()
        loop.start(Loop(task, tmp_path / f"{augment}-{most}", settings, {}), resume=False)
        assert sum(encoded) == 16 * times + 8 * (2 if most == 0 else 1)
    pixels = torch.from_numpy(task.held_out.pixels[:2])
    torch.testing.assert_close(
        task._cached([0, 1], pixels), task._encode(pixels), atol=1e-2, rtol=1e-3
    )  # float16


@pytest.mark.slow
@pytest.mark.skipif(not glyphs.FONT.exists(), reason=f"needs {glyphs.FONT}")
@pytest.mark.parametrize(
    ("count", "gain"), [(80, 0), pytest.param(300, 0.02, marks=pytest.mark.long)]
)
def test_heat_maps_locate_objects_better_than_the_clips_own_patches(
    tmp_path: Path, count: int, gain: float
) -> None:
    """The recipe of train/README.md on fewer scenes, from the shipped CLIP."""
    few.write(tmp_path / "few", count, held_out=count // 5)
    parts = contrastive.parts_of(tmp_path / "few", None, share=0.1, skip_bad=False)
    settings = LoopSettings(epochs=8, batch=32, lr=3e-3, warm_up=20, weight_decay=0.2)
    recipe = ContrastiveRecipe(augment="none", captions=3, side=384)
    task = Pacl(begin(None, "mini-clip"), parts, recipe, settings, Grid(0, 60))
    task.save(tmp_path / "own")
    loop.start(Loop(task, tmp_path / "run", settings, {}), resume=False)
    samples = datasets.read_folder(tmp_path / "few")
    own, learned = (
        evaluate_heat(OpenClip(f"file:{tmp_path / name}"), samples) for name in ("own", "run")
    )
    assert learned.pointing >= 0.8
    # 0.485; the product of the head's two layers reaches 0.454
    assert learned.miou > own.miou + gain


def test_a_side_that_a_transformer_does_not_support_is_reported(tmp_path: Path) -> None:
    shapes.write(tmp_path, 20, held_out=4)
    parts = contrastive.parts_of(tmp_path, None, share=0.1, skip_bad=False)
    with pytest.raises(Unsupported, match="cannot process images of 96 px"):
        Pacl(fresh("small-vit"), parts, ContrastiveRecipe(side=96), LoopSettings(batch=8))
