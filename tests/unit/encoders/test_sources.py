"""A checkpoint is found by its spec, or named with what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segclip.encoders import checkpoints, sources
from segclip.encoders.openclip import OpenClip
from segclip.errors import UnknownName, WeightsCorrupt, WeightsMissing
from tests.small_clip import PREPROCESS_CFG


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("ViT-B-33/openai", UnknownName, "ViT-B-32"),
        ("ViT-B-32/datacmp", UnknownName, "datacomp_xl_s13b_b90k"),
        ("nonsense", UnknownName, "MODEL/TAG"),
        ("file:/no/such/folder", WeightsMissing, "/no/such/folder"),
        ("ViT-B-32/file:/no/such.safetensors", WeightsMissing, r"/no/such\.safetensors"),
        ("ViT-B-32/laion400m_e31", WeightsMissing, "laion400m_e31|not on this machine"),
        ("hf-hub:nobody/nothing", WeightsMissing, "file:FOLDER"),
    ],
)
def test_a_missing_checkpoint_is_named(
    spec: str, error: type, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCLIP_OFFLINE", "1")
    with pytest.raises(error, match=message):
        OpenClip(spec)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"model\.safetensors"):
        OpenClip(f"file:{tmp_path}")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_cfg": {"vision_cfg": 1}}'])
def test_a_broken_config_is_refused(folder: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WeightsCorrupt, match=r"config\.json"):
        OpenClip(f"file:{tmp_path}")


def test_a_tag_has_its_own_activation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open_clip_model.safetensors").touch()
    monkeypatch.setattr(sources, "snapshot_download", lambda repo, **options: str(tmp_path))
    assert sources.find("ViT-B-32/openai").model_cfg["quick_gelu"] is True
    assert sources.find("ViT-B-32/laion400m_e31").model_cfg["quick_gelu"] is True
    assert sources.find("ViT-B-32/laion2b_e16").model_cfg["quick_gelu"] is False


@pytest.mark.parametrize(
    ("model", "mean", "interpolation", "resize_mode"),
    [
        ("ViT-B-32", 0.48145466, "bicubic", "shortest"),
        ("ViT-B-16-SigLIP", 0.5, "bicubic", "squash"),
        ("MobileCLIP2-S0", 0.0, "bilinear", "shortest"),
        ("PE-Core-B-16", 0.5, "bilinear", "squash"),
    ],
)
def test_a_bare_file_gets_the_named_models_preprocessing(
    model: str, mean: float, interpolation: str, resize_mode: str, tmp_path: Path
) -> None:
    checkpoint = sources.from_file(model, tmp_path / "any.safetensors", model)
    own = checkpoints.preprocess_config(checkpoint, 224)
    assert (own.mean[0], own.interpolation, own.resize_mode, own.size) == (
        mean,
        interpolation,
        resize_mode,
        224,
    )


def test_a_config_beside_a_bare_file_takes_precedence(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"preprocess_cfg": PREPROCESS_CFG}))
    checkpoint = sources.from_file("ViT-B-32", tmp_path / "any.safetensors", "ViT-B-32")
    assert checkpoints.preprocess_config(checkpoint, 224).mean[0] == 0.4


def test_an_unknown_or_conflicting_activation_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 17.22: ViT-B-32 has published weights of either activation; a file states neither."""
    file = tmp_path / "any.safetensors"
    sources.from_file("ViT-B-32-quickgelu", file, f"ViT-B-32-quickgelu/file:{file}")
    sources.from_file("ViT-B-32", file, "ViT-B-32/laion2b_s34b_b79k")
    assert caplog.text == ""
    sources.from_file("ViT-B-32", file, f"ViT-B-32/file:{file}")
    assert "does not state its activation" in caplog.text
    caplog.clear()
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {"quick_gelu": False}})
    )
    checkpoint = sources.from_file("ViT-B-32-quickgelu", file, f"ViT-B-32-quickgelu/file:{file}")
    assert checkpoint.model_cfg["quick_gelu"] is False
    assert "QuickGELU by its name" in caplog.text
