"""Greedy non-maximum suppression of boxes; torchvision's takes longer to import than to write."""

from __future__ import annotations

import numpy as np

from ..types import Array


def suppress(boxes: Array, scores: Array, iou: float, limit: int | None = None) -> Array:
    """Return the rows of boxes left by greedy suppression: int64 (K,), best first.

    A box is kept if its IoU with every better kept box is at most ``iou``. boxes: float (N, 4)
    xyxy. scores: (N,); of equal ones the earlier row wins, as in torchvision. limit: maximum of K.
    """
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left) and (limit is None or len(kept) < limit):
        kept.append(int(left[0]))
        left = left[1:][box_iou(boxes[left[0]], boxes[left[1:]]) <= iou]
    return np.array(kept, np.int64)


def box_iou(box: Array, boxes: Array) -> Array:
    """Return the intersection over union of one xyxy box with N: (N,)."""
    sides = (np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])).clip(0)
    shared = sides[:, 0] * sides[:, 1]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    union = (box[2] - box[0]) * (box[3] - box[1]) + areas - shared
    shares: Array = shared / np.maximum(union, np.finfo(np.float32).tiny)
    return shares
