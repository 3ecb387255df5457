"""A timed run ends with its schedule, reports, keeps checkpoints and resumes to the same bits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from train.engine.checkpoint import TrainingCheckpoint
from train.engine.timed import RunningMeans, ServedRun, TimedRecipe


class SlopeRun(ServedRun):
    """Fit a line; every third batch has nothing to learn from."""

    def __init__(self, folder: Path, steps: int) -> None:
        torch.manual_seed(0)
        network = torch.nn.Linear(2, 1)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
        state = TrainingCheckpoint(folder, network, optimizer, 0.9)
        super().__init__(state, TimedRecipe(steps=steps, warm_up=2, floor=0, report=4, keep=4))
        self.network, self.batches, self.rates = network, 0, list[float]()

    def loss(self) -> torch.Tensor | None:
        self.batches += 1
        if self.batches % 3 == 0:
            return None
        rows = torch.randn(8, 2, generator=torch.Generator().manual_seed(self.state.step))
        return ((self.network(rows) - rows.sum(dim=1, keepdim=True)) ** 2).mean()

    def report(self) -> str:
        self.rates.append(self.state.optimizer.param_groups[0]["lr"])
        return f"{self.left:.0f} min left"

    def export(self, out: Path) -> None:
        out.mkdir()
        torch.save(self.state.average, out / "weights.pt")


def test_a_run_ends_with_its_steps_and_is_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = SlopeRun(tmp_path / "run", 10)
    run.carry_out(tmp_path / "out", resume=True)  # nothing to resume from is no fault
    output = capsys.readouterr()
    assert output.err.splitlines() == ["step 4  0 min left", "step 8  0 min left"]
    assert output.out == f"{tmp_path / 'out'}: 10 steps in 0 minutes\n"
    assert run.state.step == 10
    assert (tmp_path / "out" / "weights.pt").is_file()
    assert run.rates == pytest.approx(
        [0.1 * (0.5 + 0.5 * math.cos(math.pi * share)) for share in (0.3, 0.7)]
    )


def test_a_resumed_run_ends_at_the_same_bits(tmp_path: Path) -> None:
    whole = SlopeRun(tmp_path / "whole", 8)
    whole.train()
    part = SlopeRun(tmp_path / "part", 8)
    while part.state.step < 4:
        part.update()
    part.state.keep()
    resumed = SlopeRun(tmp_path / "part", 8)
    resumed.resume()
    assert resumed.state.step == 4
    resumed.train()
    for name, value in whole.state.average.items():
        assert torch.equal(value, resumed.state.average[name]), name


def test_a_run_of_no_time_trains_nothing_more(tmp_path: Path) -> None:
    run = SlopeRun(tmp_path, 1)
    run.recipe = TimedRecipe(minutes=1)
    run.state.spent = 60.0
    run.train()
    assert (run.batches, run.left) == (0, 0)


def test_means_begin_at_the_first_figure_and_are_listed_as_wanted() -> None:
    means = RunningMeans(0.5)
    for name, value in (("b", 1.0), ("a", 4.0), ("b", 3.0)):
        means.add(name, value)
    assert means.line() == "a 4.000  b 2.000"
    assert means.line(in_order=False) == "b 2.000  a 4.000"
