"""Decide which regions answer a text: threshold, duplicates, parts inside wholes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import BadPrompt
from ..types import Array, Masks

_ABOUT_EQUAL = 1.0  # log-odds; a cosine difference of 0.01 at CLIP's logit scale of 100


@dataclass(frozen=True)
class Selection:
    """Rules for which rows of a text's answer are kept.

    threshold: minimum probability; None uses the one stored with the encoder, and ``near_best``.
    top_k: maximum number of rows per text. best: exactly one row per text, the most probable even
    below the threshold; of a part and its whole that score about equally the whole, as without
    ``best``. nms: of two masks with more than this IoU, the less probable is dropped. containment:
    a mask with this share of its pixels inside another that scores about equally or better is a
    part of it and is dropped, as is a whole that is made up of such parts; None keeps both.
    near_best: without an explicit threshold, regions below this fraction of the probability of the
    text's best are dropped: where the object itself is present, similar ones are not meant. 0 keeps
    them.
    """

    threshold: float | None = None
    top_k: int | None = None
    best: bool = False
    nms: float = 0.6
    containment: float | None = 0.8
    near_best: float = 0.6

    def __post_init__(self) -> None:
        for name in ("threshold", "nms", "containment", "near_best"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise BadPrompt(f"{name} must be between 0 and 1, got {value}")
        if self.top_k is not None and self.top_k < 1:
            raise BadPrompt(f"top_k must be 1 or more, got {self.top_k}")


def select(
    probability: Array, similarity: Array, masks: Masks, *, selection: Selection, threshold: float
) -> Array:
    """Return the rows that answer one text, best first: int64 (R,).

    probability, similarity: (N,); similarity breaks ties. threshold: used if ``selection`` has
    none. A row of probability 0 is never chosen, not even as the best.
    """
    order = np.lexsort((-similarity, -probability))
    order = order[probability[order] > 0]
    if selection.best:
        odds = _log_odds(probability[order])
        rows = order[odds >= odds[:1] - _ABOUT_EQUAL]
    else:
        limit = least(probability, selection=selection, threshold=threshold)
        rows = order[probability[order] >= limit]
    candidates = masks[rows]
    shared = _shared(candidates, selection)
    kept = _distinct(candidates.areas, shared, selection.nms)
    rows, shared = rows[kept], shared[np.ix_(kept, kept)]
    if selection.containment is not None:
        rows = rows[_wholes(candidates[kept], shared, probability[rows], selection.containment)]
    return rows[: 1 if selection.best else selection.top_k]


def least(probability: Array, *, selection: Selection, threshold: float) -> float:
    """Return the minimum probability of a row, given those of one text, (N,).

    threshold: used if ``selection`` has none.
    """
    if selection.threshold is not None:
        return selection.threshold
    return max(threshold, selection.near_best * float(probability.max(initial=0)))


def _shared(masks: Masks, selection: Selection) -> Array:
    """Count the pixels that pairs of masks share: int64 (N, N).

    0 for pairs whose boxes and areas rule out both suppression rules.
    """
    areas, boxes = masks.areas, masks.boxes.astype(np.int64)
    sides = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(
        boxes[:, None, :2], boxes[None, :, :2]
    )
    smaller = np.minimum(areas[:, None], areas[None, :])
    most = np.minimum(smaller, sides.clip(0).prod(axis=2))  # (N, N) upper bound
    wanted = most >= selection.nms * (areas[:, None] + areas[None, :] - most)
    if selection.containment is not None:
        wanted |= most >= selection.containment * smaller
    return masks.intersections(masks, wanted)


def _distinct(areas: Array, shared: Array, nms: float) -> Array:
    """Return the rows left by non-maximum suppression: int64 (R,). shared: (N, N)."""
    iou = shared / np.maximum(areas[:, None] + areas[None, :] - shared, 1)
    kept: list[int] = []
    for row in range(len(areas)):
        if not (iou[row, kept] > nms).any():
            kept.append(row)
    return np.array(kept, np.int64)


def _wholes(masks: Masks, shared: Array, probability: Array, containment: float) -> Array:
    """Mark the rows that are neither a part of another nor a group of others: bool (N,).

    A leaf is dropped: the apple around it scores about as well or better for "apple". An apple in a
    basket stays: the basket scores worse. A mask of two apples is dropped when each apple has a
    mask of its own that scores about as well.
    """
    areas = masks.areas
    # (N, N): row i lies inside j
    inside = (shared >= containment * areas[:, None]) & (areas[None, :] > areas[:, None])
    odds = _log_odds(probability)
    # (N, N): j scores about as well as i, or better
    as_good = odds[None, :] >= odds[:, None] - _ABOUT_EQUAL
    members = inside & as_good & as_good.T
    group = np.array(
        [_covers(masks, members[:, j], j) >= containment for j in range(len(masks))], bool
    )
    part = (inside & as_good & ~group[None, :]).any(axis=1)
    whole: Array = ~group & ~part
    return whole


def _log_odds(probability: Array) -> Array:
    likely = np.clip(probability.astype(np.float64), 1e-15, 1 - 1e-15)
    odds: Array = np.log(likely / (1 - likely))
    return odds


def _covers(masks: Masks, members: Array, whole: int) -> float:
    """Return the share of ``whole`` that two or more members cover together; 0 for fewer."""
    if np.count_nonzero(members) < 2:
        return 0.0
    covered = masks[members].union(masks.boxes[whole]) & masks.bitmaps[whole]
    return float(np.count_nonzero(covered) / masks.areas[whole])
