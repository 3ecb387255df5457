"""A patch head begins as the CLIP's own projection."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch

from segclip.encoders import patches
from tests.unit.encoders.test_patches import head_of
from train.engine.heads import with_head
from train.engine.start import fresh, trained


def test_an_untrained_head_is_the_clip_itself() -> None:
    start = fresh("small")
    tower, pixels = start.model.visual.eval(), torch.randn(2, 3, 64, 64)
    head = head_of(start, 512)
    with torch.no_grad():
        # average pooling and W1 commute
        pooled = head.linear(patches.encode(tower, pixels).mean(dim=(1, 2)))
        torch.testing.assert_close(pooled, tower(pixels), atol=1e-5, rtol=1e-4)


def test_a_model_with_a_patch_head_under_its_former_names_is_loaded(tmp_path: Path) -> None:
    start = fresh("small-vit", size=32)
    _, head, served = with_head(start, 32, 0, scorer="dense")
    torch.nn.init.normal_(head.mlp[-1].weight)
    start.model.patch_head = head
    served.save(start.model, tmp_path)
    file = tmp_path / "model.safetensors"
    current = safetensors.torch.load_file(file)
    former = {
        key.replace("patch_head.linear", "patch_head.straight").replace(
            "patch_head.mlp", "patch_head.bent"
        ): value
        for key, value in current.items()
    }
    assert len(former.keys() - current.keys()) == 6
    safetensors.torch.save_file(former, file)
    loaded = trained(f"file:{tmp_path}").model.patch_head.state_dict()
    for key, value in head.state_dict().items():
        assert torch.allclose(value, loaded[key], atol=2e-3), key  # stored in half precision
