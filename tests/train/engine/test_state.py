"""The learning rate, the average of the weights, and the time of a run."""

from __future__ import annotations

import pytest
import torch

from train.engine.state import PAUSE, TrainingState, warm_cosine


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    assert [warm_cosine(step, 4, 0) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert warm_cosine(9, 0, 0.5) == pytest.approx(0.5)
    assert warm_cosine(9, 4, 1.0) == warm_cosine(9, 4, 1.5) == 0


@pytest.mark.parametrize(("ramp", "average"), [(True, 1 - 2 / 11), (False, 0.1)])
def test_the_average_follows_faster_at_first_only_with_a_ramp(ramp: bool, average: float) -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    network.weight.data.zero_()
    optimizer = torch.optim.AdamW(network.parameters())
    state = TrainingState(network, optimizer, 0.9, ramp=ramp)
    network.weight.data.fill_(1)
    state.count()
    assert float(state.average["weight"]) == pytest.approx(average)


def test_a_suspended_step_counts_a_minute_at_most() -> None:
    network = torch.nn.Linear(1, 1)
    state = TrainingState(network, torch.optim.AdamW(network.parameters()), 0)
    state.elapse(-1e9)
    assert state.spent == PAUSE
