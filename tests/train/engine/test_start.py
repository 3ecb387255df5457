"""What a run starts from: random weights or existing ones."""

from __future__ import annotations

import pytest
import torch

from segclip.errors import BadPrompt, UnknownName
from train.engine.start import begin, fresh


def test_a_seed_is_a_model_and_leaves_the_generator_where_building_puts_it() -> None:
    first, again, other = (fresh("small-vit", seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


def test_a_side_and_the_scale_of_siglip_are_those_given() -> None:
    start = fresh("small-vit", size=32, sigmoid=True)
    assert start.size == 32
    assert start.model.logit_bias.item() == -10


def test_an_unknown_model_is_reported_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="small-vit"):
        fresh("smoll")


def test_a_size_is_for_random_weights_only() -> None:
    with pytest.raises(BadPrompt, match="random"):
        begin(None, "mini-clip", size=32)
