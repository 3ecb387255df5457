"""The trust canary: whatever is loaded, from wherever, nothing of it runs unless the user has said
--trust.

Every canary leaves a file, the marker, when it runs. It is tried in every container, under every
name, by every loader, and as every thing a checkpoint may point to; no marker may appear.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import segclip
from segclip import loading, weights
from segclip.encoders import checkpoints, sources
from segclip.encoders.openclip import OpenClip, OpenClipOptions
from segclip.errors import SegclipError
from segclip.loading import load_encoder, load_proposer

from .small_clip import MODEL_CFG, save_small_clip

SUFFIXES = (
    "",
    ".pt",
    ".pth",
    ".PT",
    ".bin",
    ".ckpt",
    ".ts",
    ".model",
    ".npz",
    ".onnx",
    ".safetensors",
    ".txt",
)
FILE_SPECS = (
    "file:{}",
    "mini-fastsam/file:{}",
    "sam-vit-b/file:{}",
    "mini-sam/file:{}",
    "mobile-sam/file:{}",
)


class Canary:
    """Touch a file when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


class Script(torch.nn.Module):
    """Write a file when a TorchScript archive is opened."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.marker = str(marker)
        self.weight = torch.nn.Parameter(torch.zeros(2))

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.marker, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.marker = state[0]
        self.weight = torch.zeros(2)
        self.training = state[1]
        torch.save(torch.zeros(1), self.marker)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Do nothing."""
        return x


def _torch(held: Any, *, zipped: bool = True) -> bytes:
    made = io.BytesIO()
    torch.save(held, made, _use_new_zipfile_serialization=zipped)
    return made.getvalue()


def _script(marker: Path) -> bytes:
    made = io.BytesIO()
    torch.jit.save(torch.jit.script(Script(marker)), made)
    return made.getvalue()


def _numpy(marker: Path) -> bytes:
    made = io.BytesIO()
    np.savez(made, a=np.array([Canary(marker)], dtype=object))
    return made.getvalue()


CONTAINERS: dict[str, Callable[[Path], bytes]] = {
    "torch": lambda marker: _torch({"model": Canary(marker), "weight": torch.zeros(2)}),
    "torch alone": lambda marker: _torch(Canary(marker)),
    "legacy torch": lambda marker: _torch(
        {"state_dict": {"a": torch.zeros(2), "b": Canary(marker)}}, zipped=False
    ),
    "pickle": lambda marker: pickle.dumps(Canary(marker)),
    "pickle 2": lambda marker: pickle.dumps(Canary(marker), protocol=2),
    "pickle 0": lambda marker: pickle.dumps(Canary(marker), protocol=0),
    "torchscript": _script,
    "numpy": _numpy,
}


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """Give the place of the marker, which must not be there afterwards."""
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists(), "code of a checkpoint ran"


@pytest.fixture
def obliging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer every question that a library may ask on the terminal with yes, and stay offline."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setenv("SEGCLIP_OFFLINE", "1")


def refused(load: Callable[[], Any]) -> None:
    """Load something that must end in one line of segclip's own."""
    with pytest.raises(SegclipError) as refusal:
        load()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_canaries_are_alive(name: str, tmp_path: Path) -> None:
    """See that each would leave its marker, had it been loaded as such files are."""
    data, opened = (
        CONTAINERS[name](tmp_path / "ran"),
        {
            "torchscript": torch.jit.load,
            "numpy": lambda held: np.load(held, allow_pickle=True)["a"],
            "pickle": pickle.load,
            "pickle 2": pickle.load,
            "pickle 0": pickle.load,
        },
    )
    opened.get(name, lambda held: torch.load(held, weights_only=False))(io.BytesIO(data))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_file_runs(container: str, suffix: str, marker: Path, tmp_path: Path) -> None:
    """Fault 17.12b: a list of bad suffixes let TorchScript through as .model, and any other
    suffix.
    """
    file = tmp_path / f"sam_vit_b{suffix}"
    file.write_bytes(CONTAINERS[container](marker))
    for spec in FILE_SPECS:
        refused(partial(load_proposer, spec.format(file), device="cpu"))
    refused(lambda: load_encoder(f"ViT-S-32-alt/file:{file}", device="cpu"))
    refused(lambda: load_encoder(f"file:{file}", device="cpu"))


@pytest.mark.parametrize("container", CONTAINERS)
def test_trust_runs_no_more_than_it_must(container: str, marker: Path, tmp_path: Path) -> None:
    """A CLIP and a SAM are tensors: even with --trust nothing else is loaded; a TorchScript archive
    never runs.
    """
    file = tmp_path / "sam_vit_b.pth"
    file.write_bytes(CONTAINERS[container](marker))
    for spec in ("file:{}", "sam-vit-b/file:{}", "mobile-sam/file:{}"):
        refused(partial(load_proposer, spec.format(file), device="cpu", trust=True))
    refused(lambda: load_encoder(f"ViT-S-32-alt/file:{file}", device="cpu", trust=True))
    if container == "torchscript":
        refused(lambda: load_proposer(f"mini-fastsam/file:{file}", device="cpu", trust=True))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", [*checkpoints.SAFE_FILES, *checkpoints.PICKLED_FILES])
def test_no_folder_runs(container: str, name: str, marker: Path, tmp_path: Path) -> None:
    """Fault 17.9, 17.12b: file: folders, of encoders and of proposers, and what training starts
    from.
    """
    from train.engine import start

    save_small_clip(tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").unlink()
    (tmp_path / "clip" / name).write_bytes(CONTAINERS[container](marker))
    refused(lambda: load_encoder(f"file:{tmp_path / 'clip'}", device="cpu"))
    refused(lambda: start.trained(f"file:{tmp_path / 'clip'}"))
    refused(lambda: start.begin(None, f"file:{tmp_path / 'clip'}"))
    for part in ("proposer", "sam"):
        shutil.copytree(weights.weights_folder() / "mini" / part, tmp_path / part)
        (tmp_path / part / "model.safetensors").write_bytes(CONTAINERS[container](marker))
        refused(partial(load_proposer, f"file:{tmp_path / part}", device="cpu"))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    "row", ["mobile-sam", "fastsam-s", "ViT-L-14/datacomp_xl_s13b_b90k", "PE-Core-B-16/meta"]
)
def test_no_file_in_the_place_of_a_known_one_runs(
    container: str, row: str, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEGCLIP_OFFLINE", "1")
    entry = weights.manifest()[row]
    entry.path.parent.mkdir(parents=True)
    entry.path.write_bytes(CONTAINERS[container](marker))
    load = load_encoder if entry.kind == "encoder" else load_proposer
    refused(lambda: load(row, device="cpu"))
    refused(
        lambda: load(row, device="cpu")
    )  # and what the first try recorded lets no second one through


def _point_at_code(
    folder: Path, marker: Path, changes: dict[str, Any], tokenizer: dict[str, Any] | None
) -> None:
    """Make a checkpoint that would be whole, but for code that its files point to."""
    text = {**MODEL_CFG["text_cfg"], **changes.get("text_cfg", {})}
    save_small_clip(folder)
    config = json.loads((folder / "config.json").read_text())
    config["model_cfg"] |= {**changes, "text_cfg": text}
    config |= changes.get("top", {})
    config["model_cfg"].pop("top", None)
    (folder / "config.json").write_text(json.dumps(config))
    code = f"import os\nos.system('touch {marker}')\nclass Evil: pass\n"
    for name in ("code.py", "vocab.py", "tokenizer.py", "tok.py"):
        (folder / name).write_text(code)
    if tokenizer is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))


MAPPED = {
    "auto_map": {
        "AutoTokenizer": ["tok.Evil", "tok.Evil"],
        "AutoConfig": "tok.Evil",
        "AutoModel": "tok.Evil",
    }
}
HF = {"hf_tokenizer_name": "own"}
BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
} | MAPPED
POINTERS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "auto_map": ({"text_cfg": HF}, MAPPED),
    "auto_map and a class": ({"text_cfg": HF}, MAPPED | {"tokenizer_class": "Evil"}),
    "tokenizer_kwargs": (
        {"text_cfg": HF | {"tokenizer_kwargs": {"trust_remote_code": True}}},
        MAPPED,
    ),
    "a revision of code": (
        {
            "text_cfg": HF
            | {"tokenizer_kwargs": {"trust_remote_code": True, "code_revision": "main"}}
        },
        MAPPED,
    ),
    "the folder's config": ({"text_cfg": HF, "top": {"model_type": "evil"} | MAPPED}, {}),
    "a repository elsewhere": (
        {"text_cfg": HF},
        {"auto_map": {"AutoTokenizer": ["evil/repo--tok.Evil", None]}},
    ),
    "a vocabulary elsewhere": (
        {"text_cfg": HF | {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}},
        MAPPED,
    ),
    "hf_config": ({"text_cfg": {"hf_config": BERT, "trust_remote_code": True}}, None),
    "hf_config of an unknown kind": (
        {"text_cfg": {"hf_config": {"model_type": "evil"} | MAPPED}},
        None,
    ),
    "hf_model_name": (
        {"text_cfg": {"hf_model_name": "FOLDER", "hf_tokenizer_name": "FOLDER"}},
        MAPPED,
    ),
    "timm_model_name": (
        {"vision_cfg": {"timm_model_name": "local-dir:FOLDER", "image_size": 32}},
        None,
    ),
    "timm's hub": ({"vision_cfg": {"timm_model_name": "hf-hub:evil/repo", "image_size": 32}}, None),
}


@pytest.mark.usefixtures("obliging")
@pytest.mark.parametrize("hub", [False, True], ids=["file", "hf-hub"])
@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("pointer", POINTERS)
def test_nothing_a_checkpoint_points_to_runs(
    pointer: str,
    trust: bool,
    hub: bool,
    marker: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fault 17.9: tokenizer_kwargs and auto_map reached transformers, and --trust is for pickles,
    not for that.
    """
    folder = tmp_path / "clip"
    changes, tokenizer = POINTERS[pointer]
    changes = json.loads(json.dumps(changes).replace("FOLDER", str(folder)))
    _point_at_code(folder, marker, changes, tokenizer)
    spec = f"file:{folder}"
    if hub:
        monkeypatch.setattr(sources, "snapshot_download", _snapshot_of(folder, tmp_path / "hub"))
        spec = "hf-hub:evil/repo"
    monkeypatch.chdir(folder)

    def use() -> None:
        encoder = OpenClip(spec, options=OpenClipOptions(trust=trust))
        encoder.encode_texts(["a cat"])

    refused(use)


def _snapshot_of(folder: Path, hub: Path) -> Callable[..., str]:
    """Fetch what the hub's client would of a repository with these files."""

    def fetch(repo: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        hub.mkdir(exist_ok=True)
        for file in folder.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, hub)
        assert not list(hub.glob("*.py")), "code was fetched"
        return str(hub)

    return fetch


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", [*checkpoints.SAFE_FILES, *checkpoints.PICKLED_FILES])
def test_no_weights_of_the_hub_run(
    container: str, name: str, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_small_clip(tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").unlink()
    (tmp_path / "clip" / name).write_bytes(CONTAINERS[container](marker))
    monkeypatch.setattr(
        sources, "snapshot_download", _snapshot_of(tmp_path / "clip", tmp_path / "hub")
    )
    refused(lambda: load_encoder("hf-hub:evil/repo", device="cpu"))


LAYERS = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]
DESCRIPTIONS: dict[str, Any] = {
    "an activation": {"backbone": LAYERS, "head": [], "activation": "CODE"},
    "a layer": {"backbone": [[-1, 1, "CODE", []]], "head": []},
    "a loader": {"backbone": [[-1, 1, "load_checkpoint", ["FILE"]]], "head": []},
    "a network": {"backbone": [[-1, 1, "SegmentationModel", ["FOLDER/evil.yaml"]]], "head": []},
    "a download": {"backbone": [[-1, 1, "TorchVision", [16, "resnet18", "DEFAULT"]]], "head": []},
    "an argument": {"backbone": [[-1, 1, "Conv", ["CODE", 3, 2]]], "head": []},
    "a path": "FOLDER/evil.yaml",
    "an address": "http://127.0.0.1:9/evil.yaml",
    "a stock name": "yolov8n-seg.yaml",
}


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_no_description_runs(
    what: str, safe: bool, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network's description is data, whether or not ultralytics was imported before with its own
    safety off.
    """
    from segclip.proposers import yolo

    with yolo.quiet():
        from ultralytics.nn import tasks
    monkeypatch.setattr(tasks, "SAFE_LOAD", safe)
    (tmp_path / "c.pt").write_bytes(CONTAINERS["torch"](marker))
    code = f"__import__('os').system('touch {marker}')"
    text = (
        json.dumps(DESCRIPTIONS[what]).replace("CODE", code).replace("FILE", str(tmp_path / "c.pt"))
    )
    description = json.loads(text.replace("FOLDER", str(tmp_path)))
    evil = {
        "nc": 1,
        "scales": {"n": [1, 1, 64]},
        "backbone": LAYERS,
        "head": [],
        "activation": code,
    }
    for name in ("evil.yaml", "yolov8n-seg.yaml", "yolov8-seg.yaml"):
        (tmp_path / name).write_text(json.dumps(evil))
    monkeypatch.chdir(tmp_path)
    for part in ("proposer", "sam"):
        shutil.copytree(weights.weights_folder() / "mini" / part, tmp_path / part)
        config = json.loads((tmp_path / part / "config.json").read_text())
        if part == "sam":
            config["sam"]["encoder"]["description"] = description
        else:
            config["architecture"] = description
        (tmp_path / part / "config.json").write_text(json.dumps(config))
        if what == "a stock name":  # the package's own, not the one in the working folder
            load_proposer(f"file:{tmp_path / part}", device="cpu")
        else:
            refused(partial(load_proposer, f"file:{tmp_path / part}", device="cpu"))


@pytest.mark.usefixtures("obliging")
def test_an_index_that_names_code_runs_nothing(marker: Path, tmp_path: Path) -> None:
    """Fault 17.9: searching a folder of photos loads the encoder that its index names."""
    from segclip import search

    folder = tmp_path / "clip"
    _point_at_code(folder, marker, *POINTERS["tokenizer_kwargs"])
    place = tmp_path / "photos" / ".segclip-index"
    place.mkdir(parents=True)
    identity: dict[str, Any] = {
        "source": "",
        "encoder": f"file:{folder}",
        "weights": "0" * 16,
        "proposer": "mini-fastsam",
    }
    identity |= {
        "proposer_weights": "",
        "policy": None,
        "regions": False,
        "engine": "numpy",
        "format": 1,
    }
    (place / "index.json").write_text(json.dumps(identity))
    for use in (
        lambda: search.make_index(tmp_path / "photos"),
        lambda: OpenClip(json.loads((place / "index.json").read_text())["encoder"]).encode_texts(
            ["a cat"]
        ),
    ):
        refused(use)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a pickle with code in it that a manifest vouches for; it leaves "allowed" and then
    proves no network.
    """
    file = tmp_path / "known.pt"
    file.write_bytes(_torch({"model": Canary(tmp_path / "allowed"), "pad": "x" * 8}))
    row = {
        "name": "known",
        "kind": "proposer",
        "loader": "fastsam",
        "file": "known.pt",
        "licence": "MIT",
    }
    row |= {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "manifest.json").write_text(json.dumps({"entries": [row]}))
    monkeypatch.setenv("SEGCLIP_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path / "home"))
    return file


def swap(file: Path, marker: Path) -> None:
    """Put another pickle, of the same size and time, in a file's place."""
    stat = file.stat()
    for pad in range(200):
        data = _torch({"model": Canary(marker.with_name("ran")), "pad": "x" * pad})
        if len(data) == stat.st_size:
            break
    file.write_bytes(data.ljust(stat.st_size, b"\0"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size


@pytest.mark.parametrize("forged", [False, True])
def test_a_known_pickle_that_is_swapped_does_not_run(
    known: Path, marker: Path, forged: bool, tmp_path: Path
) -> None:
    """Fault 17.10: the record of a hash vouched for whatever lay there later; forged: even a record
    that fits it.
    """
    from segclip.weights import cache

    good = hashlib.sha256(known.read_bytes()).hexdigest()
    refused(lambda: load_proposer(f"file:{known}", device="cpu"))
    assert (tmp_path / "allowed").exists(), "the manifest has its hash"
    swap(known, marker)
    if forged:
        cache.remember(known, good)
        assert cache.known_sha256(known) == good
    refused(lambda: load_proposer(f"file:{known}", device="cpu"))
    refused(lambda: loading.load(f"file:{known}", "mini-clip", device="cpu"))


def test_a_known_pickle_that_is_swapped_after_the_check_does_not_run(
    known: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17.10: what is hashed are the bytes that are loaded."""

    def look_for_a_gpu() -> bool:  # after the check, and before the file is opened again
        swap(known, marker)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", look_for_a_gpu)
    refused(lambda: load_proposer(f"file:{known}", device="cpu"))


@pytest.mark.parametrize("container", [name for name in CONTAINERS if name != "torchscript"])
@pytest.mark.parametrize("name", ["refs(unc).p", "grefs(unc).p", "refs.pkl"])
def test_no_file_of_expressions_runs(
    container: str, name: str, marker: Path, tmp_path: Path
) -> None:
    """RefCOCO is published as pickles, which are read as plain data."""
    from segclip.files import referring

    (tmp_path / name).write_bytes(CONTAINERS[container](marker))
    refused(lambda: referring.read(tmp_path / name))


def test_the_public_names_load_through_the_same_gate(marker: Path, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(CONTAINERS["torch"](marker))
    refused(lambda: segclip.load(f"file:{tmp_path / 'a.pt'}", "mini-clip"))
    refused(lambda: segclip.load("mini-fastsam", f"ViT-S-32-alt/file:{tmp_path / 'a.pt'}"))
    refused(lambda: segclip.load_picker(f"file:{tmp_path / 'a.pt'}"))
