"""A model with a patch head: saved, and loaded under its former names too."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch

from train.engine.heads import with_head
from train.engine.start import fresh, trained


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
