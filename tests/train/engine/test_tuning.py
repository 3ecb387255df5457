"""Only what is tuned learns, and merged LoRA layers change no output."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.train.test_contrastive import QUICK, task_of
from train.contrastive import ContrastiveRecipe
from train.engine import loop, tuning
from train.engine.loop import Loop, LoopSettings
from train.engine.start import begin, trained
from train.engine.tuning import Tuning


def test_merging_lora_changes_no_output(scenes: Path) -> None:
    task = task_of(scenes, QUICK, ContrastiveRecipe(tuning=Tuning("lora", rank=4)))
    optimizer = torch.optim.SGD([p for p in task.network.parameters() if p.requires_grad], lr=0.5)
    for batch in task.batches(0, 0):
        task.backward(batch)
        optimizer.step()
    task.network.eval()
    plain = tuning.merged(task.network).eval()
    pixels = torch.randn(4, 3, 32, 32, device=task.device)
    tokens = batch.tokens[:4].to(task.device)
    with torch.no_grad():
        torch.testing.assert_close(
            plain.encode_image(pixels), task.model.encode_image(pixels), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            plain.encode_text(tokens), task.model.encode_text(tokens), atol=1e-5, rtol=0
        )
        untouched = begin(str(scenes / "tiny.json"), None).model.eval().to(task.device)
        assert not torch.allclose(
            plain.encode_image(pixels), untouched.encode_image(pixels), atol=1e-4
        )
    assert plain.state_dict().keys() == untouched.state_dict().keys()


def test_lora_learns_resumes_and_serves(scenes: Path, tmp_path: Path) -> None:
    settings = LoopSettings(epochs=4, batch=16, warm_up=2, lr=1e-2)
    recipe = ContrastiveRecipe(tuning=Tuning("lora", rank=4))
    first = LoopSettings(epochs=4, batch=16, warm_up=2, lr=1e-2, patience=1)
    loop.start(
        Loop(task_of(scenes, settings, recipe), tmp_path / "whole", settings, {}), resume=False
    )
    losses = [
        json.loads(line)["loss"]
        for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < losses[0]
    made = Loop(task_of(scenes, first, recipe), tmp_path / "halted", first, {})
    made.state.extra["best"] = 2.0  # never exceeded: it stops after one epoch
    made.run()
    again = Loop(task_of(scenes, settings, recipe), tmp_path / "halted", settings, {})
    again.resume()
    assert again.state.extra["epoch"] == 1
    again.run()
    ends = [
        torch.load(tmp_path / name / "last.pt", weights_only=True)["network"]
        for name in ("whole", "halted")
    ]
    # not to the bit: peft adds to attention's weights and subtracts again
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], atol=1e-4, rtol=0)
    assert trained(f"file:{tmp_path / 'whole'}").size == 32
