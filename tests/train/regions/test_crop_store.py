"""Crops and their classes come back as they were stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.train.test_region_text import flat_crops
from train.regions import crop_store
from train.regions.crop_store import CropStore, Shards


def test_crops_come_back_as_they_were_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crop_store, "SHARD", 4)  # more than one file
    crops = flat_crops(6)
    assert Shards(tmp_path, "drawn").write(crops) == 6
    store = CropStore(tmp_path, "drawn")
    assert len(store) == 6
    for number, crop in enumerate(crops):
        assert store[number].label == crop.label
        assert np.array_equal(store[number].mask, crop.mask)
        assert np.allclose(
            store[number].pixels.mean((0, 1)), crop.pixels.mean((0, 1)), atol=3
        )  # JPEG
