"""Augmentation keeps what it should, and a seed is an image."""

from __future__ import annotations

import numpy as np
import pytest

from train.engine.augment import AUGMENTS, Augment, augmented


@pytest.mark.parametrize("name", AUGMENTS)
def test_a_seed_is_an_image_of_the_side_wanted(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    first, again, other = (
        augmented(np.random.default_rng(seed), pixels, 32, AUGMENTS[name], flip=True)
        for seed in (1, 1, 2)
    )
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (name == "none")


def test_an_image_is_mirrored_only_where_it_may_be() -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, :20] = 255
    for flip in (True, False):
        lefts = {
            bool(augmented(rng, pixels, 40, Augment(flip=True), flip=flip)[20, 5, 0] > 128)
            for rng in map(np.random.default_rng, range(20))
        }
        assert lefts == ({True, False} if flip else {True})
