"""Mutate config.json files and checkpoints: every one loads or ends in one line of segclip's own,
and none runs.

SEGCLIP_FUZZ_EXAMPLES: how many are tried of each kind. SEGCLIP_FUZZ_SEED: which; it is printed
where one fails.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segclip import weights
from segclip.encoders.openclip import OpenClip, OpenClipOptions
from segclip.errors import SegclipError
from segclip.loading import load_proposer
from segclip.proposers.sam import SAM, Architecture, ViT
from segclip.types import Everything, Image, Points

from ..small_clip import save_small_clip

log = logging.getLogger(__name__)
EXAMPLES = int(os.environ.get("SEGCLIP_FUZZ_EXAMPLES", "40"))
SEED = int(os.environ.get("SEGCLIP_FUZZ_SEED", "0"))
SMALL_SAM = Architecture(64, 16, ViT(32, 2, 2, 2, (1,)), 16, 4, 1, 32, 16)
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
ODD: list[Any] = [
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        2,
        3,
        7,
        255,
        2**31,
        2**70,
        10**400,
        -0.5,
        0.1,
        1e308,
        float("nan"),
        float("inf"),
    ),
    *(
        "",
        "x",
        "x" * 5000,
        "\ud800",
        "../..",
        "/etc/passwd",
        "a\0b",
        "nn.SiLU()",
        "__import__('os')",
        "\x1b[31m",
    ),
    *([], [[]], {}, {"a": {}}, [1, 2], [None], ["x"], [0.5, 0.5, 0.5], {"trust_remote_code": True}),
]


def every_place(value: Any) -> list[tuple[Any, Any]]:
    """List the container and the key of everything inside a JSON value."""
    rows = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [place for key, inner in rows for place in ((value, key), *every_place(inner))]


def mutated_config(text: str, rng: random.Random) -> bytes:
    """Change a config in one to three places, or its text."""
    config = json.loads(text)
    kind = rng.random()
    for _ in range(rng.randint(1, 3)):
        container, key = rng.choice(every_place(config))
        if rng.random() < 0.2:
            del container[key]
        elif (
            isinstance(container.get(key) if isinstance(container, dict) else None, int)
            and rng.random() < 0.3
        ):
            container[key] = rng.choice([-1, 2, 3, 10, 1000]) * container[key] + rng.randint(-1, 1)
        else:
            container[key] = rng.choice(ODD)
        if not every_place(config):
            break
    data = json.dumps(config).encode("utf-8", "surrogatepass")
    if kind < 0.1:
        return mutated_bytes(data, rng)
    if kind < 0.15:
        return b'{"model_cfg":' * rng.choice([10, 1000, 100_000])
    return data


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat or insert bytes, the more often near the beginning, where formats say what
    follows.
    """
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 30])):
        place = int(len(changed) * rng.random() ** rng.choice([1, 6]))
        kind = rng.randrange(6)
        if kind == 0:
            del changed[place:]
        elif kind == 1:
            changed[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 2:
            changed[place:place] = rng.randbytes(rng.choice([1, 8, 100]))
        elif kind == 3:
            changed[place : place + 8] = rng.choice(
                [b"\xff" * 8, b"\0" * 8, (2**40).to_bytes(8, "little")]
            )
        elif kind == 4:
            del changed[place : place + rng.choice([1, 8, 100])]
        else:
            changed[place:place] = changed[: rng.randrange(200)]
    return bytes(changed)


class Canary:
    """Touch a file when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def check(use: Callable[[], Any], what: str, folder: Path) -> bool:
    """Use something mutated; return whether it loaded."""
    log.warning("%s of SEGCLIP_FUZZ_SEED=%d", what, SEED)  # what pytest shows of a failure
    message = ""
    try:
        use()
    except SegclipError as error:
        message = str(error)
    assert not (folder / "ran").exists(), "something ran"
    assert message.isprintable(), ascii(message)
    assert not message or str(folder) in message, message
    return not message


def use_clip(folder: Path, *, trust: bool = False) -> None:
    encoder = OpenClip(f"file:{folder}", options=OpenClipOptions("float32", trust=trust))
    encoder.encode_images([PIXELS])
    encoder.encode_texts(["a cat"])


def use_proposer(spec: str, *, trust: bool = False) -> None:
    proposer = load_proposer(spec, device="cpu", trust=trust)
    features = proposer.encode(Image(PIXELS))
    proposer.decode(features, Points([(5, 5)]))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    save_small_clip(folder)
    return folder


@pytest.mark.parametrize("tower", ["ViT", "ResNet"])
def test_configs_of_encoders(
    tower: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17.11: 60 of 167 were tracebacks."""
    monkeypatch.setenv("SEGCLIP_OFFLINE", "1")
    if tower == "ResNet":
        network = {
            "timm_model_name": "resnet10t",
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 32,
        }
        clip = tmp_path / "conv"
        save_small_clip(clip, vision_cfg=network)
    text = (clip / "config.json").read_text()
    full = json.loads(text)
    full["model_cfg"]["text_cfg"] |= {"tokenizer_kwargs": {"clean": "lower"}, "pool_type": "argmax"}
    shutil.copy(clip / "model.safetensors", tmp_path)
    for number in range(max(1, EXAMPLES // 2)):
        rng = random.Random(f"{SEED} encoder {tower} {number}")
        (tmp_path / "config.json").write_bytes(
            mutated_config(rng.choice([text, json.dumps(full)]), rng)
        )
        check(lambda: use_clip(tmp_path), f"encoder {tower} {number}", tmp_path)


@pytest.mark.parametrize("part", ["proposer", "sam"])
def test_configs_of_proposers(part: str, tmp_path: Path) -> None:
    """Fault 17.11."""
    shutil.copytree(weights.weights_folder() / "mini" / part, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "config.json").read_text()
    for number in range(max(1, EXAMPLES // 4)):
        rng = random.Random(f"{SEED} {part} {number}")
        (tmp_path / "config.json").write_bytes(mutated_config(text, rng))
        check(lambda: use_proposer(f"file:{tmp_path}"), f"{part} {number}", tmp_path)


def containers(state: dict[str, torch.Tensor], marker: Path) -> list[bytes]:
    """Write tensors in every container, some with a canary beside them."""
    import safetensors.torch

    made = []
    held: list[Any] = [
        state,
        {"state_dict": state, "epoch": np.float64(1)},
        {"model": state, "run": Canary(marker)},
    ]
    for one in held:
        for zipped in (True, False):
            file = io.BytesIO()
            torch.save(one, file, _use_new_zipfile_serialization=zipped)
            made.append(file.getvalue())
    made.append(safetensors.torch.save({name: value.contiguous() for name, value in state.items()}))
    script = io.BytesIO()
    torch.jit.save(
        torch.jit.script(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU())), script
    )
    return [*made, script.getvalue(), pickle.dumps(Canary(marker), protocol=2)]


def test_checkpoints_of_encoders(clip: Path, tmp_path: Path) -> None:
    """Fault 17.11: malicious pickles were refused, 32 of 240 by tracebacks."""
    state = OpenClip(f"file:{clip}")._model.state_dict()
    small = {
        name: value.half() for name, value in state.items() if name != "token_embedding.weight"
    }
    made = containers(
        small | {"token_embedding.weight": state["token_embedding.weight"][:8]}, tmp_path / "ran"
    )
    shutil.copy(clip / "config.json", tmp_path)
    for number in range(EXAMPLES):
        rng = random.Random(f"{SEED} weights {number}")
        for old in tmp_path.glob("*model*"):
            old.unlink()
        name = rng.choice(
            ["model.safetensors", "open_clip_pytorch_model.bin", "open_clip_model.safetensors"]
        )
        (tmp_path / name).write_bytes(mutated_bytes(rng.choice(made), rng))
        trust = rng.random() < 0.8
        check(partial(use_clip, tmp_path, trust=trust), f"weights {number}", tmp_path)


def test_checkpoints_of_proposers(tmp_path: Path) -> None:
    """Fault 17.11."""
    torch.manual_seed(0)
    made = containers(SMALL_SAM.build().state_dict(), tmp_path / "ran")
    for number in range(EXAMPLES):
        rng = random.Random(f"{SEED} proposer weights {number}")
        file = tmp_path / rng.choice(
            ["sam_a.pth", "a.pt", "mobile_sam.pt", "sam_b", "sam_c.safetensors"]
        )
        file.write_bytes(mutated_bytes(rng.choice(made), rng))
        sam = file.name.startswith("sam_")
        trust = sam and rng.random() < 0.8  # of FastSAM's own format --trust is leave to run it
        use = partial(use_proposer, f"file:{file}", trust=trust)
        if check(use, f"{file.name} {number}", tmp_path):
            SAM(file).decode(SAM(file).encode(Image(PIXELS)), Everything())
