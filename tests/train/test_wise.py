"""Mixtures of a model before and after tuning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segclip.errors import BadPrompt
from tests.train.test_contrastive import QUICK, run
from train import wise
from train.engine.start import fresh, trained


def test_a_mixture_lies_between_and_ends_are_the_models(scenes: Path, tmp_path: Path) -> None:
    run(scenes, tmp_path / "before", QUICK)
    run(scenes, tmp_path / "tuned", QUICK, start=f"file:{tmp_path / 'before'}")
    before, tuned = (
        trained(f"file:{tmp_path / name}").model.state_dict() for name in ("before", "tuned")
    )
    name = "visual.proj"
    assert torch.equal(wise.mix(before, tuned, 0.0)[name], before[name])
    assert torch.equal(wise.mix(before, tuned, 1.0)[name], tuned[name])
    torch.testing.assert_close(
        wise.mix(before, tuned, 0.25)[name], 0.75 * before[name] + 0.25 * tuned[name]
    )
    other = fresh("small").model.state_dict()
    with pytest.raises(BadPrompt, match="not of one model"):
        wise.mix(before, other, 0.5)


def test_the_share_that_is_chosen_keeps_what_must_not_be_lost() -> None:
    gains = [{"text to image R@5": 0.1 * row} for row in range(11)]
    guards = [{"image to text R@1": 0.5 - 0.01 * row} for row in range(11)]
    assert wise.choose(gains, None, "text to image R@5", 0.02) == 10
    assert wise.choose(gains, guards, "text to image R@5", 0.0201) == 2
