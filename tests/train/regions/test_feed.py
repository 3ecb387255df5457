"""Crops are drawn by the frequency of their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.train.test_region_head import table
from train.regions.crop_store import WRONG
from train.regions.feed import RegionFeed


def test_wrong_candidates_come_twice_as_often_as_right_ones(tmp_path: Path) -> None:
    feed = RegionFeed(table(tmp_path, [0] * 5 + [WRONG] * 95), np.random.default_rng(0))
    wrong = feed.labels == WRONG
    assert feed.weights[wrong].sum() == pytest.approx(2 / 3)
