"""Choose among candidates by place: the answer of a proposer that finds everything first to points and boxes."""

from __future__ import annotations

import numpy as np

from ..types import Array, Everything, Masks, Points, Proposals

INSIDE = 0.8  # share of a mask's pixels that must lie in a box for it to be inside


def keep_within(proposals: Proposals, prompt: Everything) -> Proposals:
    """Keep what lies inside one of the prompt's boxes and covers none of its points."""
    masks = proposals.masks
    kept = np.ones(len(masks), bool)
    if prompt.inside is not None:
        share = solid(prompt.inside, masks.size).intersections(masks) / np.maximum(masks.areas, 1)  # (B, N)
        kept &= (share >= INSIDE).any(axis=0)
    if prompt.without is not None:
        kept &= ~contains(masks, prompt.without.astype(np.int64)).any(axis=1)
    return proposals if kept.all() else proposals[kept]


def nearest_to_boxes(proposals: Proposals, xyxy: Array) -> Proposals:
    """Give for each box the candidate of highest IoU with it, or an empty mask of quality 0 when none touches it."""
    overlap = solid(xyxy, proposals.masks.size).iou(proposals.masks)  # (B, N)
    rows = [int(row.argmax()) if row.any() else None for row in overlap]
    nothing = Proposals(Masks(np.zeros((1, 4)), (np.zeros((0, 0), bool),), proposals.masks.size), np.zeros(1))
    return join([nothing if row is None else proposals[[row]] for row in rows])


def at_points(proposals: Proposals, points: Points) -> Proposals:
    """Keep the candidates that contain the most foreground points and no background point, best first.

    Without foreground points: all that contain no background point. With a box: nearest to it first.
    """
    hits = contains(proposals.masks, points.xy.astype(np.int64))  # (N, K)
    foreground = hits[:, points.labels == 1].sum(axis=1)
    allowed = ~hits[:, points.labels == 0].any(axis=1)
    most = foreground[allowed].max(initial=0)
    chosen = proposals[allowed & (foreground == most) & ((most > 0) | ~points.labels.any())]
    if points.box is None:
        return chosen
    overlap = solid(points.box[None], chosen.masks.size).iou(chosen.masks)[0]
    nearest = np.argsort(-overlap, kind="stable")
    return chosen[nearest[overlap[nearest] > 0]]


def contains(masks: Masks, xy: Array) -> Array:
    """Tell which masks hold which pixels, int (K, 2) x, y: bool (N, K)."""
    inside = (masks.boxes[:, None, :2] <= xy) & (xy < masks.boxes[:, None, 2:])  # (N, K, 2)
    hits = np.logical_and(inside[..., 0], inside[..., 1])
    for row, k in zip(*np.nonzero(hits), strict=True):
        x, y = xy[k] - masks.boxes[row, :2]
        hits[row, k] = masks.bitmaps[row][y, x]
    return hits


def solid(xyxy: Array, size: tuple[int, int]) -> Masks:
    """Fill boxes, float (B, 4): every pixel one touches."""
    corners = np.hstack([np.floor(xyxy[:, :2]), np.ceil(xyxy[:, 2:])]).astype(np.int32)
    return Masks(corners, tuple(np.ones((y2 - y1, x2 - x1), bool) for x1, y1, x2, y2 in corners), size)


def join(parts: list[Proposals]) -> Proposals:
    """Stack tables of one image, without their logits."""
    boxes = np.concatenate([part.masks.boxes for part in parts])
    bitmaps = tuple(bitmap for part in parts for bitmap in part.masks.bitmaps)
    return Proposals(Masks(boxes, bitmaps, parts[0].masks.size), np.concatenate([part.quality for part in parts]))
