"""OpenClip on a small random model: specs, configs, preprocessing, texts, precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch
from open_clip.transformer import Transformer
from torch.nn.modules.module import register_module_forward_pre_hook

from segclip.encoders.openclip import OpenClip, OpenClipOptions, choose_precision
from segclip.errors import UnknownName, Unsupported, WeightsCorrupt
from segclip.types import Image
from tests.small_clip import FLOAT32, MODEL_CFG, SERVING, save_small_clip
from tests.thin import LONGEST, striped


def test_a_saved_folder_restores_everything(small: OpenClip, folder: Path) -> None:
    assert small.serving == SERVING
    assert small.name == f"file:{folder}"
    assert small.image_size == 32
    assert small.logit_scale == pytest.approx(1 / 0.07)


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


def test_a_text_is_encoded_once(folder: Path) -> None:
    encoder = OpenClip(
        f"file:{folder}", options=OpenClipOptions(precision="float32", cached_texts=2)
    )
    encoded: list[int] = []

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, Transformer):
            encoded.append(len(inputs[0]))

    hook = register_module_forward_pre_hook(count)
    try:
        first = encoder.encode_texts(["a cat", "a dog", "a cat"])
        assert encoder.encode_texts(["a dog", "a cat"]) == pytest.approx(first[[1, 0]])
        assert encoded == [2]
        encoder.encode_texts(["an owl"])
        encoder.encode_texts(["a cat"])  # used after "a dog", which was evicted
        assert encoded == [2, 1]
    finally:
        hook.remove()


def test_dense_features_are_refused(small: OpenClip) -> None:
    with pytest.raises(Unsupported, match="patch head"):
        small.encode_dense(Image(np.zeros((4, 4, 3), np.uint8)))


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


def test_a_tower_with_fewer_tokens_than_its_tokenizer_is_refused(tmp_path: Path) -> None:
    """Fault 17.11."""
    save_small_clip(tmp_path, text_cfg={**MODEL_CFG["text_cfg"], "vocab_size": 100})
    encoder = OpenClip(f"file:{tmp_path}", options=FLOAT32)
    with pytest.raises(WeightsCorrupt, match=r"config\.json: .* knows 100 tokens"):
        encoder.encode_texts(["a cat"])


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", LONGEST)
def test_an_encoder_embeds_a_thin_image(size: tuple[int, int], mode: str, tmp_path: Path) -> None:
    save_small_clip(tmp_path, resize_mode=mode)
    encoder = OpenClip(f"file:{tmp_path}", options=FLOAT32)
    (row,) = encoder.encode_images([striped(size).pixels])
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-3)
