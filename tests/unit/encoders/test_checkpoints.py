"""Models are built from their configuration, saved, loaded, and refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from segclip.encoders import Serving, checkpoints
from segclip.encoders.openclip import OpenClip, OpenClipOptions, save
from segclip.errors import Unsupported, WeightsCorrupt
from tests.small_clip import FLOAT32, MODEL_CFG, PREPROCESS_CFG


def test_matrices_are_stored_as_float16_and_no_pickle_is_written(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.ndim > 1} == {torch.float16}
    assert tensors["logit_scale"].dtype == torch.float32
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    safetensors.torch.save_file({"logit_scale": torch.ones(())}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(WeightsCorrupt, match="does not fit"):
        OpenClip(f"file:{tmp_path}")


def test_a_pickled_file_needs_trust(folder: Path, tmp_path: Path) -> None:
    state = safetensors.torch.load_file(folder / "model.safetensors")
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(Unsupported, match="pickle"):
        OpenClip(f"file:{tmp_path}")
    trusted = OpenClip(f"file:{tmp_path}", options=OpenClipOptions(trust=True))
    assert trusted.image_size == 32


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("serving", {"threshold": "high"}),
        ("serving", {"threshold": 2}),
        ("serving", {"templates": []}),
        ("serving", {"templates": ["no slot"]}),
        ("serving", {"templates": "a {}"}),
        ("serving", {"backgrounds": [1]}),
        ("serving", {"logit_scale": -1}),
        ("serving", {"policy": {"views": []}}),
        ("serving", {"policy": {"views": [{"fill": "pink"}]}}),
        ("serving", {"policy": {"views": [{"context": 1e6}]}}),
        ("serving", {"unheard": 1}),
        ("serving", []),
        ("preprocess_cfg", {"mean": [0.5]}),
        ("preprocess_cfg", {"std": [0.5, 0.5, 0]}),
        ("preprocess_cfg", {"interpolation": "cubism"}),
        ("preprocess_cfg", {"resize_mode": None}),
        ("preprocess_cfg", {"fill_color": "red"}),
        ("preprocess_cfg", {"mode": "L"}),
    ],
)
def test_a_config_that_cannot_be_served_is_refused_on_loading(
    folder: Path, tmp_path: Path, part: str, value: object
) -> None:
    """Fault 17.11: errors in the config are reported on loading, with the file's name."""
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {part: value}))
    with pytest.raises(WeightsCorrupt, match=r"config\.json") as error:
        OpenClip(f"file:{tmp_path}")
    assert "\n" not in str(error.value)


def test_a_conv_tower_with_its_own_text_tower_round_trips(
    tmp_path: Path, crops: np.ndarray
) -> None:
    config = {
        **MODEL_CFG,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "resnet10t",
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 32,
        },
    }
    model = checkpoints.make_model(config).eval()
    save(model, tmp_path, model_cfg=config, preprocess_cfg=PREPROCESS_CFG, serving=Serving())
    with torch.inference_mode():
        pixels = (torch.from_numpy(crops) / 255 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor(
            [0.2, 0.3, 0.4]
        )
        expected = model.encode_image(pixels.permute(0, 3, 1, 2), normalize=True).numpy()
    assert OpenClip(f"file:{tmp_path}", options=FLOAT32).encode_images(crops) == pytest.approx(
        expected, abs=2e-3
    )
