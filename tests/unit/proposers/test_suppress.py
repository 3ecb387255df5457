"""Greedy suppression keeps the same boxes as torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from segclip.proposers.suppress import suppress


@pytest.mark.parametrize("iou", [0.0, 0.3, 0.7, 1.0])
def test_it_equals_torchvisions(iou: float) -> None:
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 50, (200, 2)), rng.uniform(5, 40, (200, 2))
    boxes = np.hstack([corner, corner + side]).astype(np.float32)
    scores = rng.integers(0, 20, 200).astype(np.float32) / 20  # with ties
    kept = suppress(boxes, scores, iou)
    assert kept.tolist() == nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou).tolist()
    assert suppress(boxes, scores, iou, limit=3).tolist() == kept[:3].tolist()


def test_zero_boxes_are_accepted() -> None:
    assert suppress(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []
