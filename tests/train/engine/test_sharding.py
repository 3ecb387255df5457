"""A model sharded over two processes trains like one that each of them has whole."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from segclip.errors import BadPrompt, Unsupported
from train import contrastive, shapes
from train.contrastive import Contrastive, ContrastiveRecipe
from train.engine import sharding
from train.engine.loop import Loop, LoopSettings
from train.engine.start import begin, fresh
from train.engine.tuning import Tuning

ROOT = Path(__file__).parents[3]
TINY: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
SETTINGS = LoopSettings(
    epochs=2, batch=8, chunk=2, accumulate=2, lr=3e-3, warm_up=2, clip=0.5, ema=0.9
)


def run(scenes: Path, out: Path, *more: str) -> None:
    """Train in two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    arguments = [str(scenes), "--model", str(scenes / "tiny.json"), "--out", str(out)]
    for name in ("epochs", "batch", "chunk", "accumulate", "lr", "warm_up", "clip", "ema"):
        arguments += [f"--{name.replace('_', '-')}", str(getattr(SETTINGS, name))]
    command = [sys.executable, *launch, "-m", "train.contrastive", *arguments, *more]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def halved(scenes: Path, out: Path) -> None:
    """Train in one process and stop after the first epoch."""
    parts = contrastive.parts_of(scenes, None, share=0.1, skip_bad=False)
    task = Contrastive(begin(str(scenes / "tiny.json"), None), parts, ContrastiveRecipe(), SETTINGS)
    made = Loop(task, out, LoopSettings(**{**vars(SETTINGS), "patience": 1}), {})
    made.state.extra["best"] = 2.0  # never exceeded
    made.run()
    assert made.state.extra["epoch"] == 1


def same(one: Path, other: Path) -> None:
    """Compare two runs: metrics of each epoch, served weights, checkpoints."""
    rows = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (one, other)
    ]
    assert [len(table) for table in rows] == [2, 2]
    for ours, theirs in zip(*rows, strict=True):
        for name in ("loss", "R@1", "logit scale"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-5), name
    kept = [torch.load(run / "last.pt", weights_only=True) for run in (one, other)]
    for part in ("network", "average"):
        for name, value in kept[0][part].items():
            torch.testing.assert_close(value, kept[1][part][name], atol=2e-5, rtol=1e-3)
    served = [
        safetensors.torch.load_file(run / "last" / "model.safetensors") for run in (one, other)
    ]
    assert served[0].keys() == served[1].keys()
    for name, value in served[0].items():  # rounded to float16
        torch.testing.assert_close(value.float(), served[1][name].float(), atol=2e-4, rtol=2e-3)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    folder = tmp_path / "scenes"
    shapes.write(folder, 44, held_out=12)
    (folder / "tiny.json").write_text(json.dumps(TINY))
    return folder


@pytest.mark.slow
def test_sharded_processes_end_where_whole_ones_do(scenes: Path, tmp_path: Path) -> None:
    run(scenes, tmp_path / "whole")
    run(scenes, tmp_path / "spread", "--fsdp")
    same(tmp_path / "whole", tmp_path / "spread")


@pytest.mark.long
def test_sharded_processes_go_on_from_a_single_one(scenes: Path, tmp_path: Path) -> None:
    halved(scenes, tmp_path / "resumed")
    shutil.copytree(tmp_path / "resumed", tmp_path / "resumed-spread")
    run(scenes, tmp_path / "resumed", "--resume")
    run(scenes, tmp_path / "resumed-spread", "--resume", "--fsdp")
    same(tmp_path / "resumed", tmp_path / "resumed-spread")


@pytest.mark.parametrize("model", ["small", "small-vit", "small-rn"])
def test_most_weights_are_sharded(model: str) -> None:
    network = fresh(model).model
    spread = {id(p) for block in sharding._blocks(network) for p in block.parameters()}
    total = sum(p.numel() for p in network.parameters())
    assert sum(p.numel() for p in network.parameters() if id(p) in spread) > 0.85 * total
    assert id(network.logit_scale) not in spread  # torch does not shard scalars


def test_one_process_or_lora_is_reported() -> None:
    with pytest.raises(BadPrompt, match="torchrun --nproc-per-node 2"):
        sharding.spread(fresh("small-vit").model)
    with pytest.raises(Unsupported, match="LoRA"):
        ContrastiveRecipe(tuning=Tuning("lora"), spread=True)
