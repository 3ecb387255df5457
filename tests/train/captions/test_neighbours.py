"""Hard negatives: near texts come together, once per epoch, reproducibly."""

from __future__ import annotations

import numpy as np
import pytest

from train.captions.neighbours import Neighbours, nearest


def around(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_nearest_texts_come_first_and_never_the_text_itself() -> None:
    assert nearest(around(0, 10, 90, 95), 2).tolist() == [[1, 2], [0, 2], [3, 1], [2, 1]]
    assert nearest(around(0, 10), 32).tolist() == [[1], [0]]
    assert nearest(around(0), 32).shape == (1, 0)  # one text has no neighbours


@pytest.mark.parametrize("joined", [1, 3])
def test_an_epoch_goes_through_everything_once_near_by_near(joined: int) -> None:
    # 12 groups of 4 similar ones
    angles = np.repeat(np.arange(0, 360, 30), 4) + np.tile([0, 1, 2, 3], 12)
    made = Neighbours(np.arange(48), nearest(around(*angles)), joined)
    order = made.order(np.random.default_rng(0))
    assert sorted(order) == list(range(48))
    groups = order.reshape(-1, joined + 1) // 4
    assert np.mean(groups == groups[:, :1]) == 1
    assert np.array_equal(order, made.order(np.random.default_rng(0)))
    assert not np.array_equal(order, made.order(np.random.default_rng(1)))


def test_images_of_one_text_are_not_each_others_negatives() -> None:
    texts = np.repeat([0, 1, 2], 4)  # three classes of four images
    made = Neighbours(texts, nearest(around(0, 10, 90)), 1)
    order = made.order(np.random.default_rng(0))
    assert sorted(order) == list(range(12))
    pairs = texts[order].reshape(-1, 2)[:4]
    assert all(one != other for one, other in pairs)
