"""Trainers' checkpoints: unwrapped and read without running code, or rejected with one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from segclip.encoders.openclip import OpenClip, OpenClipOptions
from segclip.errors import SegclipError, Unsupported, WeightsCorrupt
from segclip.proposers.sam import SAM, Architecture, ViT
from segclip.weights import tensors
from tests.small_clip import save_small_clip

TRUSTED = OpenClipOptions(precision="float32", trust=True)
TEXTS = ["a red apple", "two dogs"]
State = dict[str, torch.Tensor]
SMALL_SAM = Architecture(64, 16, ViT(32, 2, 2, 2, (1,)), 16, 4, 1, 32, 16)


def _adamw(state: State) -> dict[str, Any]:
    """Return optimiser state with NumPy scalars, as open_clip's trainer wrote until 2.29."""
    rate = 0.5 * (1 + np.cos(np.pi * 3 / 10)) * 1e-4
    return {
        "state": {},
        "param_groups": [
            {"lr": rate, "step": np.int64(3), "half": np.float32(1), "on": np.bool_(True)}
        ],
    }


FORMS: dict[str, Callable[[State], Any]] = {
    "a plain state dict": lambda state: state,
    "open_clip's trainer": lambda state: {
        "epoch": 3,
        "name": "x",
        "state_dict": {f"module.{name}": value for name, value in state.items()},
        "optimizer": _adamw(state),
    },
    "module.": lambda state: {f"module.{name}": value for name, value in state.items()},
    "model_state_dict": lambda state: {
        "epoch": 3,
        "model_state_dict": state,
        "loss": np.float64(0.1),
    },
    "model": lambda state: {"model": state, "epoch": 1},
    "Lightning": lambda state: {
        "state_dict": {f"model.{name}": value for name, value in state.items()}
    },
    "_orig_mod.": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "module._orig_mod.": lambda state: {
        "state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}
    },
    "_orig_mod.module. under model": lambda state: {
        "model": {
            "state_dict": {f"_orig_mod.module.{name}": value for name, value in state.items()}
        }
    },
    "clip. or sam.": lambda state: {
        f"{'clip' if 'logit_scale' in state else 'sam'}.{name}": value
        for name, value in state.items()
    },
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State, np.ndarray]:
    folder = tmp_path_factory.mktemp("clip")
    state = {name: value.clone() for name, value in save_small_clip(folder).state_dict().items()}
    return folder, state, OpenClip(f"file:{folder}", options=TRUSTED).encode_texts(TEXTS)


@pytest.fixture(scope="module")
def sam() -> State:
    torch.manual_seed(0)
    return SMALL_SAM.build().state_dict()


def in_folder(clip: tuple[Path, State, np.ndarray], folder: Path, held: Any) -> str:
    (folder / "config.json").write_text((clip[0] / "config.json").read_text())
    torch.save(held, folder / "open_clip_pytorch_model.bin")
    return f"file:{folder}"


@pytest.mark.parametrize("form", FORMS)
def test_a_clip_is_unwrapped(
    clip: tuple[Path, State, np.ndarray], form: str, tmp_path: Path
) -> None:
    """Fault 17.22: only plain state dicts, DDP's and those under "state_dict" were read."""
    loaded = OpenClip(in_folder(clip, tmp_path, FORMS[form](clip[1])), options=TRUSTED)
    # the reference folder stores float16
    assert loaded.encode_texts(TEXTS) == pytest.approx(clip[2], abs=1e-3)


def test_prefixed_safetensors_are_unwrapped(
    clip: tuple[Path, State, np.ndarray], tmp_path: Path
) -> None:
    """Fault 17.22."""
    (tmp_path / "config.json").write_text((clip[0] / "config.json").read_text())
    prefixed = {f"module.{name}": value.contiguous() for name, value in clip[1].items()}
    safetensors.torch.save_file(prefixed, tmp_path / "model.safetensors")
    loaded = OpenClip(f"file:{tmp_path}", options=TRUSTED)
    assert loaded.encode_texts(TEXTS) == pytest.approx(clip[2], abs=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_a_sam_is_unwrapped(sam: State, form: str, tmp_path: Path) -> None:
    """Fault 17.22, of SAM."""
    torch.save(FORMS[form](sam), tmp_path / "sam_mine.pth")
    loaded = SAM(tmp_path / "sam_mine.pth").network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in sam.items())


@pytest.mark.parametrize("halved", [torch.float16, torch.bfloat16])
def test_other_precisions_are_read(sam: State, halved: torch.dtype, tmp_path: Path) -> None:
    torch.save({name: value.to(halved) for name, value in sam.items()}, tmp_path / "sam_mine.pth")
    assert SAM(tmp_path / "sam_mine.pth").image_size == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {n: v for n, v in s.items() if n.startswith("visual.")},
            r"missing, such as \w+",
        ),
        (
            lambda s: s | {"classifier.weight": torch.zeros(3, 3)},
            r"1 unexpected, such as classifier\.weight",
        ),
        (
            lambda s: s | {"ln_final.bias": torch.zeros(3)},
            r"of another shape, such as ln_final\.bias: \(3,\), not \(64,\)",
        ),
        (lambda s: [1, 2], "is a list, not a state dict"),
        (lambda s: {"epoch": 3}, r"has no tensors, but 'epoch'"),
        (lambda s: {}, "has no tensors, but nothing"),
        (lambda s: torch.nn.Linear(2, 2), r"holds torch\.nn\.modules\.linear\.Linear"),
        (lambda s: {"model": {"model": {"model": {"model": {"model": s}}}}}, "has no tensors"),
    ],
)
def test_mismatched_tensors_are_reported(
    clip: tuple[Path, State, np.ndarray],
    change: Callable[[State], Any],
    message: str,
    tmp_path: Path,
) -> None:
    """Faults 17.22, 17.11: missing and unexpected keys, in one line with the file's name."""
    with pytest.raises(WeightsCorrupt, match=message) as caught:
        OpenClip(in_folder(clip, tmp_path, change(clip[1])), options=TRUSTED)
    assert str(tmp_path / "open_clip_pytorch_model.bin") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_tensors_of_a_sam_are_reported(sam: State, tmp_path: Path) -> None:
    """Fault 17.22, of SAM."""
    decoder = {name: value for name, value in sam.items() if name.startswith("mask_decoder.")}
    torch.save(decoder, tmp_path / "sam_part.pth")
    with pytest.raises(WeightsCorrupt, match=r"sam_part\.pth .*image_encoder\."):
        SAM(tmp_path / "sam_part.pth")
    torch.save(sam | {"mask_decoder.hf_token.weight": torch.zeros(1, 64)}, tmp_path / "sam_hq.pth")
    with pytest.raises(
        WeightsCorrupt, match=r"sam_hq\.pth .* 1 unexpected, such as mask_decoder\.hf_token"
    ):
        SAM(tmp_path / "sam_hq.pth")


@pytest.mark.parametrize("length", [7, 32, 248])
@pytest.mark.parametrize("custom_text", [False, True])
def test_the_context_length_is_that_of_the_weights(
    length: int, custom_text: bool, tmp_path: Path
) -> None:
    """Fault 17.22: 248 or 32 positions were resized to the config's 77, changing the embeddings."""
    text = {"context_length": length, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    model = save_small_clip(tmp_path, text_cfg=text, custom_text=custom_text)
    config = tmp_path / "config.json"
    config.write_text(
        config.read_text().replace(f'"context_length": {length}', '"context_length": 77')
    )
    ours = OpenClip(f"file:{tmp_path}", options=TRUSTED)
    texts = ["cat", "a photo of two red dogs on a blue sofa " * 12]
    import open_clip

    tokens = open_clip.SimpleTokenizer(context_length=length)(texts)
    with torch.inference_mode():
        theirs = model.encode_text(tokens, normalize=True).numpy()
    assert ours._checkpoint.model_cfg["text_cfg"]["context_length"] == length
    assert ours.encode_texts(texts) == pytest.approx(theirs, abs=2e-3)


def test_the_image_size_is_that_of_the_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 17.22, for images: positions are not resized either."""
    save_small_clip(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"image_size": 32', '"image_size": 48'))
    assert OpenClip(f"file:{tmp_path}", options=TRUSTED).image_size == 32
    assert "32 px, not 48" in caplog.text


def test_a_quickgelu_checkpoint_under_a_gelu_name_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 17.22: tensors do not reveal their activation, but the trainer's notes may."""
    state = save_small_clip(tmp_path, quick_gelu=True).state_dict()
    (tmp_path / "model.safetensors").unlink()
    config = tmp_path / "config.json"
    held = {"name": "2024-model_ViT-B-32-quickgelu-lr_1e-3", "state_dict": state}
    torch.save(held, tmp_path / "open_clip_pytorch_model.bin")
    OpenClip(f"file:{tmp_path}", options=TRUSTED)
    assert "QuickGELU" not in caplog.text
    config.write_text(config.read_text().replace('"quick_gelu": true', '"quick_gelu": false'))
    OpenClip(f"file:{tmp_path}", options=TRUSTED)
    assert "trained with QuickGELU" in caplog.text


def test_openais_own_archive_is_read_without_running_it(tmp_path: Path) -> None:
    """float16 TorchScript with sizes beside the weights, as OpenAI's CLIP, gives equal results."""
    model = save_small_clip(tmp_path, quick_gelu=True).half().float()
    theirs = OpenClip(f"file:{tmp_path}", options=TRUSTED).encode_texts(TEXTS)
    for name in ("input_resolution", "context_length", "vocab_size"):
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(7))
    tokens = torch.zeros(1, 16, dtype=torch.long)
    traced = torch.jit.trace_module(
        model, {"encode_image": torch.zeros(1, 3, 32, 32), "encode_text": tokens}, check_trace=False
    )
    (tmp_path / "model.safetensors").unlink()
    traced.half().save(str(tmp_path / "open_clip_pytorch_model.pt"))
    loaded = OpenClip(f"file:{tmp_path}", options=TRUSTED)
    assert loaded.encode_texts(TEXTS) == pytest.approx(theirs, abs=1e-3)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"quick_gelu": true', '"quick_gelu": false'))
    with pytest.raises(Unsupported, match="need the -quickgelu model"):
        OpenClip(f"file:{tmp_path}", options=TRUSTED)


class Named:
    """An object whose pickle calls a function when loaded."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize(
    "held",
    [
        {"a": Named(eval, ("1 + 1",))},
        Named(print, ("ran",)),
        {"model": Named(__import__, ("os",))},
        {"state_dict": {"a": torch.zeros(1), "b": Named(exec, ("x = 1",))}},
    ],
)
def test_code_in_a_pickle_is_rejected_by_name(held: Any, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(WeightsCorrupt, match=r"a\.pt holds [\w.]+, and nothing but tensors"):
        tensors.read(tmp_path / "a.pt", trust=True)


def test_a_cyclic_checkpoint_is_rejected(tmp_path: Path) -> None:
    loop: dict[str, Any] = {}
    loop["model"] = loop
    torch.save(loop, tmp_path / "a.pt")
    with pytest.raises(WeightsCorrupt, match=r"a\.pt"):
        tensors.read(tmp_path / "a.pt", trust=True)


def test_a_network_too_large_for_its_file_is_not_built(tmp_path: Path) -> None:
    """Fault 17.11: a configuration may have any size; it must not be allocated."""
    (tmp_path / "w").write_bytes(b"0" * 100)
    for build in (lambda: torch.nn.Linear(1 << 14, 1 << 14), lambda: torch.randn(1 << 16, 1 << 16)):
        with pytest.raises(WeightsCorrupt, match="far more weights"), tensors.Sized(tmp_path / "w"):
            build()
    with tensors.Sized(tmp_path / "w"):
        torch.nn.Linear(8, 8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!DOCTYPE html><html>",
        b"hello\n" * 9,
        b"\x80",
        b"PK\x03\x04",
        b"\x80\x02}",
        b"\0" * 99,
    ],
)
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a", "sam_a.pth"])
@pytest.mark.parametrize("trust", [True, False, None])
def test_a_file_without_weights_is_reported_in_one_line(
    content: bytes, name: str, trust: bool | None, tmp_path: Path
) -> None:
    """Fault 17.11."""
    (tmp_path / name).write_bytes(content)
    for load in (lambda path: tensors.read(path, trust=trust), lambda path: SAM(path, trust=trust)):
        with pytest.raises((WeightsCorrupt, Unsupported)) as caught:
            load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_deeply_nested_pickle_is_rejected(tmp_path: Path) -> None:
    """Fault 17.11."""
    deep = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    (tmp_path / "a.pt").write_bytes(deep)
    with pytest.raises(SegclipError, match=r"a\.pt"):
        tensors.read(tmp_path / "a.pt", trust=True)
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    with pytest.raises(SegclipError, match=r"b\.pt"):
        tensors.read(tmp_path / "b.pt", trust=True)
