"""Simulated prompts: first ones and corrections."""

from __future__ import annotations

import numpy as np

from segclip.types import Array
from train.engine import clicks
from train.scenes.tiles import TILE


def mask() -> Array:
    full = np.zeros((TILE, TILE), bool)
    full[100:160, 50:130] = True
    return full


def test_a_first_prompt_is_on_the_object_or_a_box_around_it() -> None:
    asks = [clicks.first_prompt(np.random.default_rng(seed), mask()) for seed in range(60)]
    boxes = np.array([ask.box for ask in asks if ask.box])
    assert 15 < len(boxes) < 45
    assert np.abs(boxes - (50, 100, 130, 160)).max() < 11
    for ask in asks:
        assert bool(ask.clicks) != bool(ask.box)
        for x, y, label in ask.clicks:
            assert mask()[int(y), int(x)]
            assert label == 1


def test_a_correction_lies_in_the_larger_error() -> None:
    predicted = mask()
    predicted[100:140] = False
    x, y, label = clicks.correction(np.random.default_rng(0), mask(), predicted)
    assert (mask() & ~predicted)[y, x]
    assert label == 1
    predicted = mask()
    predicted[:60] = True
    x, y, label = clicks.correction(np.random.default_rng(0), mask(), predicted)
    assert (predicted & ~mask())[y, x]
    assert label == 0
    x, y, label = clicks.correction(np.random.default_rng(0), mask(), mask())
    assert mask()[y, x]
    assert label == 1
