"""Crops are cut with their surroundings."""

from __future__ import annotations

import numpy as np
import pytest

from segclip.scoring.crops import View, cut
from segclip.types import Image, Masks
from train import region_crops
from train.region_features import as_served
from train.regions.crop_store import CONTEXT
from train.regions.model import SIZE


def test_a_stored_crop_cut_as_served_is_the_serving_crop() -> None:
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 256, (12, 16, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    image = Image(smooth)
    masks = Masks.from_windows([(80, 60, np.ones((80, 120), bool))], image.size)
    (crop,) = region_crops.region_crops(image, masks, [4])
    assert (crop.label, crop.context) == (4, CONTEXT)
    assert (crop.mask > 128).mean() == pytest.approx(1 / CONTEXT**2, abs=0.02)
    served = cut(image, masks, View(1.1, "blur", stretch=True), SIZE)[0].astype(float)
    assert (
        np.abs(as_served(crop, SIZE).astype(float) - served).mean() < 12
    )  # of 255; the stored one was resized twice
