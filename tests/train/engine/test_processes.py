"""A single process needs no launcher; ``test_losses`` and ``test_sharding`` start two."""

from __future__ import annotations

import pytest
import torch

from train.engine import processes


def test_a_single_process_has_every_row_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    rows = torch.randn(3, 2)
    parameter = torch.nn.Parameter(rows.clone())
    parameter.grad = rows.clone()
    with processes.joined():
        assert (processes.world(), processes.rank(), processes.mine(4)) == (1, 0, slice(0, 4))
        assert processes.gather(rows) is rows
        processes.average_gradients([parameter])
        assert torch.equal(parameter.grad, rows)
        assert processes.agree(0.25) == 0.25
