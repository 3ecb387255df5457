"""The loop over epochs: what stops it, and how it goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from segclip.errors import BadPrompt, NotWritable
from segclip.files import atomic
from tests.train.test_contrastive import QUICK, ROOT, command, run, task_of
from train.contrastive import Contrastive
from train.engine.loop import Diverged, Loop, LoopSettings
from train.engine.start import trained


def test_a_non_finite_loss_names_the_batch_and_keeps_the_last(scenes: Path, tmp_path: Path) -> None:
    made = run(scenes, tmp_path, QUICK)
    kept = (tmp_path / "model.safetensors").read_bytes()
    settings = LoopSettings(epochs=2, batch=16)
    again = Loop(task_of(scenes, settings), tmp_path, settings, {"epochs": 1})
    again.resume()
    assert isinstance(again.task, Contrastive)
    with torch.no_grad():
        again.task.model.text_projection.fill_(float("nan"))
    with pytest.raises(Diverged, match=r"epoch 2, batch 1: .*\.png"):
        again.run()
    assert (tmp_path / "model.safetensors").read_bytes() == kept
    assert made.state.extra["epoch"] == 1


@contextmanager
def no_large_files(size: int) -> Iterator[None]:
    """Limit the size of files to ``size`` bytes, as on a disk that fills up."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("part", ["last.pt", "last"])
def test_a_full_disk_leaves_the_checkpoint_before(scenes: Path, tmp_path: Path, part: str) -> None:
    run(scenes, tmp_path, QUICK)
    weights = (tmp_path / "last" / "model.safetensors").stat().st_size
    settings = LoopSettings(epochs=2, batch=16)
    made = Loop(task_of(scenes, settings), tmp_path, settings, {"epochs": 1})
    made.resume()
    with (
        no_large_files(2 * weights if part == "last.pt" else weights // 2),
        pytest.raises(NotWritable, match=part),
    ):
        made.run()
    assert [path.name for path in tmp_path.rglob("*") if atomic.is_leftover(path)] == []
    assert trained(f"file:{tmp_path / 'last'}").size == 32
    again = Loop(task_of(scenes, settings), tmp_path, settings, {"epochs": 1})
    again.resume()
    assert again.state.extra["epoch"] == 1


def test_it_stops_without_improvement(scenes: Path, tmp_path: Path) -> None:
    run(scenes, tmp_path, LoopSettings(epochs=50, batch=16, lr=0.0, patience=2))
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_run_is_not_overwritten_nor_resumed_with_other_settings(
    scenes: Path, tmp_path: Path
) -> None:
    run(scenes, tmp_path, QUICK)
    with pytest.raises(BadPrompt, match="--resume"):
        run(scenes, tmp_path, QUICK)
    made = Loop(task_of(scenes, QUICK), tmp_path, QUICK, {"epochs": 9})
    with pytest.raises(BadPrompt, match="epochs: 1, now 9"):
        made.resume()


@pytest.mark.slow
def test_a_killed_run_ends_at_the_same_bits(scenes: Path, tmp_path: Path) -> None:
    subprocess.run(command(scenes, tmp_path / "whole"), cwd=ROOT, check=True, capture_output=True)
    process = subprocess.Popen(
        command(scenes, tmp_path / "killed"), cwd=ROOT, stderr=subprocess.DEVNULL
    )
    metrics = tmp_path / "killed" / "metrics.jsonl"
    ends = time.monotonic() + 120
    while (
        not (metrics.exists() and len(metrics.read_text().splitlines()) >= 3)
        and time.monotonic() < ends
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(metrics.read_text().splitlines()) < 6, "it was killed too late"
    subprocess.run(
        command(scenes, tmp_path / "killed", "--resume"), cwd=ROOT, check=True, capture_output=True
    )
    one, other = (
        torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "killed")
    )
    for part in ("network", "average"):
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items())
    assert [json.loads(line)["loss"] for line in metrics.read_text().splitlines()] == [
        json.loads(line)["loss"]
        for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    ]
    for name in ("model.safetensors", "last/model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
