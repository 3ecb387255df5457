"""Select among candidates by position, for proposers that find everything before a prompt."""

from __future__ import annotations

import numpy as np

from ..types import Array, Everything, Masks, Points, Proposals

INSIDE = 0.8  # share of a mask's pixels that must lie in a box for it to be inside


def keep_within(proposals: Proposals, prompt: Everything) -> Proposals:
    """Keep proposals inside one of the prompt's boxes that cover none of its points."""
    kept = within(proposals.masks, prompt)
    return proposals if kept.all() else proposals[kept]


def within(masks: Masks, prompt: Everything) -> Array:
    """Mark the masks inside one of the prompt's boxes that cover none of its points: bool (N,)."""
    kept = np.ones(len(masks), bool)
    if prompt.inside is not None:
        shared = Masks.solid(prompt.inside, masks.size).intersections(masks)  # (B, N)
        share = shared / np.maximum(masks.areas, 1)
        kept &= (share >= INSIDE).any(axis=0)
    if prompt.without is not None:
        kept &= ~masks.contains(prompt.without.astype(np.int64)).any(axis=1)
    return kept


def nearest_to_boxes(proposals: Proposals, xyxy: Array) -> Proposals:
    """Return for each box the candidate of highest IoU with it.

    Where none overlaps the box, that is an empty mask of quality 0.
    """
    overlap = Masks.solid(xyxy, proposals.masks.size).iou(proposals.masks)  # (B, N)
    rows = [int(row.argmax()) if row.any() else None for row in overlap]
    empty = Proposals(
        Masks(np.zeros((1, 4)), (np.zeros((0, 0), bool),), proposals.masks.size), np.zeros(1)
    )
    return Proposals.join([empty if row is None else proposals[[row]] for row in rows])


def at_points(proposals: Proposals, points: Points) -> Proposals:
    """Keep the candidates with the most foreground points and no background point, best first.

    Without foreground points: all that contain no background point. With a box: those that overlap
    it, by IoU with it.
    """
    hits = proposals.masks.contains(points.xy.astype(np.int64))  # (N, K)
    foreground = hits[:, points.labels == 1].sum(axis=1)
    allowed = ~hits[:, points.labels == 0].any(axis=1)
    most = foreground[allowed].max(initial=0)
    chosen = proposals[allowed & (foreground == most) & ((most > 0) | ~points.labels.any())]
    if points.box is None:
        return chosen
    overlap = Masks.solid(points.box[None], chosen.masks.size).iou(chosen.masks)[0]
    nearest = np.argsort(-overlap, kind="stable")
    return chosen[nearest[overlap[nearest] > 0]]
