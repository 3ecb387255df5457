"""OpenClip on a small random model: specs, configs, preprocessing, texts, precision."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import PIL.Image
import pytest
import safetensors.torch
import torch

from segclip.encoders import ENCODERS, Serving, checkpoints, sources, text_tower
from segclip.encoders.openclip import OpenClip, OpenClipOptions, choose_precision, save
from segclip.errors import UnknownName, Unsupported, WeightsCorrupt, WeightsMissing
from segclip.registry import resolve
from segclip.scoring.crops import CropPolicy, View
from segclip.types import Image
from tests.small_clip import MODEL_CFG, PREPROCESS_CFG, save_small_clip

FLOAT32 = OpenClipOptions(precision="float32")
SERVING = Serving(CropPolicy((View(2.0, "white", 1.0),)), ("one {}",), ("nothing",), 0.25, True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip")
    save_small_clip(path, serving=SERVING)
    return path


@pytest.fixture(scope="module")
def small(folder: Path) -> OpenClip:
    return OpenClip(f"file:{folder}", options=FLOAT32)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def test_the_table_names_the_class() -> None:
    assert resolve(ENCODERS, "openclip", "encoder") is OpenClip


def test_a_saved_folder_restores_everything(small: OpenClip, folder: Path) -> None:
    assert small.serving == SERVING
    assert small.name == f"file:{folder}"
    assert small.image_size == 32
    assert small.logit_scale == pytest.approx(1 / 0.07)


def test_matrices_are_stored_as_float16_and_no_pickle_is_written(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.ndim > 1} == {torch.float16}
    assert tensors["logit_scale"].dtype == torch.float32
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_rows_are_unit_float32(small: OpenClip, crops: np.ndarray) -> None:
    for rows in (small.encode_images(crops), small.encode_texts(["a cat", "a dog"])):
        assert rows.dtype == np.float32
        assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(rows)))


def test_empty_inputs_return_no_rows(small: OpenClip, crops: np.ndarray) -> None:
    nothing = (small.encode_images(crops[:0]), small.encode_images([]), small.encode_texts([]))
    assert [rows.shape for rows in nothing] == [(0, 32)] * 3


def test_square_crops_are_normalised_as_open_clip_does(small: OpenClip, crops: np.ndarray) -> None:
    assert small.encode_images(crops) == pytest.approx(small.encode_images(list(crops)), abs=1e-6)


def test_other_crops_go_through_the_checkpoints_own_preprocessing(
    small: OpenClip, folder: Path
) -> None:
    (folder / "open_clip_config.json").write_text((folder / "config.json").read_text())
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    (folder / "open_clip_config.json").unlink()
    rng = np.random.default_rng(1)
    crops = [
        rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        for size in ((50, 20), (7, 90), (32, 32), (300, 200))
    ]
    with torch.inference_mode():
        pixels = torch.stack([preprocess(PIL.Image.fromarray(crop)) for crop in crops])
        expected = model.eval().encode_image(pixels, normalize=True).numpy()
    assert small.encode_images(crops) == pytest.approx(expected, abs=1e-5)


def test_batches_do_not_change_a_row(folder: Path, small: OpenClip, crops: np.ndarray) -> None:
    one_by_one = OpenClip(f"file:{folder}", options=OpenClipOptions(precision="float32", batch=1))
    assert one_by_one.encode_images(crops) == pytest.approx(small.encode_images(crops), abs=1e-5)
    texts = ["a cat", "a much longer text about two dogs", "owl"]
    assert one_by_one.encode_texts(texts) == pytest.approx(small.encode_texts(texts), abs=1e-5)


def test_bfloat16_stays_near_float32(folder: Path, small: OpenClip, crops: np.ndarray) -> None:
    halved = OpenClip(f"file:{folder}", options=OpenClipOptions(precision="bfloat16"))
    assert (halved.encode_images(crops) * small.encode_images(crops)).sum(axis=1).min() > 0.999
    assert (halved.encode_texts(["a cat"]) * small.encode_texts(["a cat"])).sum() > 0.999


def test_a_text_is_encoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = OpenClip(
        f"file:{folder}", options=OpenClipOptions(precision="float32", cached_texts=2)
    )
    encoded: list[int] = []
    encode = text_tower.encode

    def counted(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        encoded.append(len(tokens))
        return encode(model, tokens)

    monkeypatch.setattr(text_tower, "encode", counted)
    first = encoder.encode_texts(["a cat", "a dog", "a cat"])
    assert encoder.encode_texts(["a dog", "a cat"]) == pytest.approx(first[[1, 0]])
    assert encoded == [2]
    encoder.encode_texts(["an owl"])
    encoder.encode_texts(["a cat"])  # used after "a dog", which was evicted
    assert encoded == [2, 1]


def test_a_causal_tower_runs_only_to_the_pooled_token(
    small: OpenClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = open_clip.SimpleTokenizer(context_length=16)(
        ["cat", "a photo of two red dogs", "x " * 30]
    )
    model = small._model
    lengths: list[int] = []
    forward = type(model.transformer).forward

    def watched(
        self: torch.nn.Module, hidden: torch.Tensor, attn_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        lengths.append(hidden.shape[1])
        return forward(self, hidden, attn_mask=attn_mask)

    monkeypatch.setattr(type(model.transformer), "forward", watched)
    with torch.inference_mode():
        for rows, length in ((tokens[:1], 3), (tokens[:2], 8), (tokens, 16)):
            assert torch.allclose(
                text_tower.encode(model, rows), model.encode_text(rows), atol=1e-5
            )
            assert lengths[-2:] == [length, 16]


@pytest.mark.parametrize(
    "text_cfg",
    [
        {"no_causal_mask": True},
        {"pool_type": "last"},
        {"pool_type": "first"},
        {"embed_cls": True},
        {"pool_type": "eos", "eos_id": 49407},
        {"proj_bias": True},
        {"proj_type": "none", "width": 32},
    ],
)
def test_every_kind_of_text_tower_equals_open_clip(text_cfg: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = {**MODEL_CFG, "custom_text": True, "text_cfg": {**MODEL_CFG["text_cfg"], **text_cfg}}
    model = checkpoints.make_model(config).eval()
    tokens = open_clip.SimpleTokenizer(context_length=16)(["cat", "two red dogs"])
    with torch.inference_mode():
        assert torch.allclose(
            text_tower.encode(model, tokens), model.encode_text(tokens), atol=1e-5
        )


def test_a_warning_reports_where_a_long_text_is_truncated(
    small: OpenClip, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen"
    )
    with caplog.at_level(logging.WARNING):
        cut, kept = small.encode_texts([text, text[: text.index(" fifteen")]])
    assert cut == pytest.approx(kept)
    assert len(caplog.messages) == 1
    assert "fourteen'" in caplog.messages[0]


def test_dense_features_are_refused(small: OpenClip) -> None:
    with pytest.raises(Unsupported, match="patch head"):
        small.encode_dense(Image(np.zeros((4, 4, 3), np.uint8)))


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


def test_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    safetensors.torch.save_file({"logit_scale": torch.ones(())}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(WeightsCorrupt, match="does not fit"):
        OpenClip(f"file:{tmp_path}")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_cfg": {"vision_cfg": 1}}'])
def test_a_broken_config_is_refused(folder: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WeightsCorrupt, match=r"config\.json"):
        OpenClip(f"file:{tmp_path}")


def test_a_pickled_file_needs_trust(folder: Path, tmp_path: Path) -> None:
    state = safetensors.torch.load_file(folder / "model.safetensors")
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(Unsupported, match="pickle"):
        OpenClip(f"file:{tmp_path}")
    trusted = OpenClip(f"file:{tmp_path}", options=OpenClipOptions(trust=True))
    assert trusted.image_size == 32


def test_precision_is_automatic_or_as_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert choose_precision("bfloat16", cpu) == torch.bfloat16
    assert choose_precision("auto", torch.device("mps")) == torch.float32
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert choose_precision("auto", cpu) == expected
    with pytest.raises(UnknownName, match="float32"):
        choose_precision("float8", cpu)


def test_a_tag_has_its_own_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_tag_file", lambda name, pretrained: Path("none.safetensors"))
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


def test_a_tower_with_fewer_tokens_than_its_tokenizer_is_refused(tmp_path: Path) -> None:
    """Fault 17.11."""
    save_small_clip(tmp_path, text_cfg={**MODEL_CFG["text_cfg"], "vocab_size": 100})
    encoder = OpenClip(f"file:{tmp_path}", options=FLOAT32)
    with pytest.raises(WeightsCorrupt, match=r"config\.json: .* knows 100 tokens"):
        encoder.encode_texts(["a cat"])


def test_serving_survives_json() -> None:
    assert Serving.from_dict(json.loads(json.dumps(SERVING.to_dict()))) == SERVING
    assert Serving.from_dict({}) == Serving()
    assert not Serving().calibrated


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
