"""Choose among masks by where they lie and how large they are, as position and size words ask.

The rules are the superlatives and relations of ReCLIP (Subramanian et al. 2022,
https://arxiv.org/abs/2204.05991), applied exactly, plus ordinals and halves of the image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..types import Array, Masks

NTH = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
SIDES = ("left", "right", "top", "bottom")
_PLURAL = re.compile(r"[^sui]s$", re.IGNORECASE)  # apples, not glass, bus or iris
_SAME = 0.5  # minimum IoU at which two regions are the same object
# keys by which relations compare, where they differ
_MEASURES = {"above": "top", "below": "bottom", "bigger": "biggest", "smaller": "smallest"}
_RELATION_WORDS = {
    "left": "left of",
    "right": "right of",
    "near": "nearest to",
    "bigger": "bigger than",
    "smaller": "smaller than",
}


@dataclass(frozen=True)
class Position:
    """A position or size that a text asks for, which one object has.

    head: the text without it. key: a side, a corner such as "top right", middle, biggest or
    smallest. nth: rank by that key, from 1.
    """

    head: str
    key: str
    nth: int = 1

    def choose(self, masks: Masks) -> Array:
        """Return the matching row: int64 (1,), or (0,) when there are fewer than ``nth`` masks."""
        order = np.argsort(_measure(self.key, masks), kind="stable")
        return order[self.nth - 1 : self.nth]

    def reason(self, count: int) -> str:
        """Describe why a region was chosen among ``count``."""
        nth = "" if self.nth == 1 else f"{NTH[self.nth - 1]} "
        if self.key in ("biggest", "smallest"):
            place = self.key
        elif self.key in SIDES:
            place = f"from the {self.key}" if nth else f"{self.key}most"
        else:
            place = f"nearest to the {self.key}"
        return f"{nth}{place} of {count} found for {self.head!r}"


@dataclass(frozen=True)
class Half:
    """A half or quarter of the image that a text asks for: any number of objects may lie there.

    head: the text without it. key: a side for a half, or a corner such as "top right" for a
    quarter.
    """

    head: str
    key: str

    def choose(self, masks: Masks) -> Array:
        """Return the rows whose centroid lies there, in their order: int64 (R,)."""
        height, width = masks.size
        x, y = (_centres(masks) / (width, height)).T
        inside = {"left": x < 0.5, "right": x >= 0.5, "top": y < 0.5, "bottom": y >= 0.5}
        kept = np.ones(len(masks), bool)
        for side in self.key.split():
            kept &= inside[side]
        return np.flatnonzero(kept)

    def reason(self, kept: int, count: int) -> str:
        """Describe why ``kept`` of ``count`` regions were chosen."""
        part = "half" if self.key in SIDES else "quarter"
        return f"{kept or 'none'} of {count} found for {self.head!r}: in the {self.key} {part}"


@dataclass(frozen=True)
class Relation:
    """A relation between two objects that a text asks for.

    key: left, right, above, below, near, bigger or smaller. head: the object to find. anchor: the
    reference object. Either may contain position or size words of its own.
    """

    head: str
    key: str
    anchor: str

    def choose(self, masks: Masks, anchors: Masks) -> Array:
        """Return the rows for which the relation holds, in their order: int64 (R,).

        masks, anchors: the matches of head and anchor, most probable first. Only the first anchor
        counts, or for "near" the nearest one. Positions are compared by centroids, sizes by areas,
        and nearness by the gap between boxes.
        """
        if not len(masks) or not len(anchors):
            return np.zeros(0, np.int64)
        other = masks.iou(anchors) <= _SAME  # (N, M) an object is not its own anchor
        if self.key == "near":
            gaps = np.where(other, _gaps(masks, anchors), np.inf).min(axis=1)
            rows = np.argsort(gaps, kind="stable")
            nearest: Array = rows[np.isfinite(gaps[rows])][:1]
            return nearest
        key = _MEASURES.get(self.key, self.key)
        values, limits = _measure(key, masks), _measure(key, anchors)
        return np.flatnonzero((values < limits[0]) & other[:, 0])

    @property
    def plural(self) -> bool:
        """Whether the head is plural, so that several objects may match."""
        return bool(_PLURAL.search(self.head))

    def reason(self, kept: int, count: int, anchors: int) -> str:
        """Describe why ``kept`` of ``count`` regions were chosen by the ``anchors`` found."""
        relation = f"{_RELATION_WORDS.get(self.key, self.key)} {self.anchor!r}"
        if not anchors:
            return (
                f"nothing was found for {self.anchor!r}, so none of {count} found for "
                f"{self.head!r} can be {relation}"
            )
        return f"{kept or 'none'} of {count} found for {self.head!r}: {relation}"


def _gaps(masks: Masks, others: Masks) -> Array:
    """Return the pairwise gap of boxes in pixels, ties broken by centroids: float64 (N, M)."""
    a, b = masks.boxes.astype(np.float64)[:, None], others.boxes.astype(np.float64)[None]
    apart = np.maximum(0, np.maximum(a[..., :2] - b[..., 2:], b[..., :2] - a[..., 2:]))
    centres = _centres(masks)[:, None] - _centres(others)[None]
    gaps: Array = np.hypot(*np.moveaxis(apart, -1, 0)) + 1e-3 * np.hypot(
        *np.moveaxis(centres, -1, 0)
    )
    return gaps


def _measure(key: str, masks: Masks) -> Array:
    """Return the sort value of each mask for the key, ascending: float64 (N,)."""
    if key in ("biggest", "smallest"):
        areas: Array = masks.areas.astype(np.float64)
        return -areas if key == "biggest" else areas
    height, width = masks.size
    x, y = (_centres(masks) / (width, height)).T
    if key == "middle":
        distance: Array = np.hypot(x - 0.5, y - 0.5)
        return distance
    away = {"left": x, "right": -x, "top": y, "bottom": -y}
    total: Array = sum((away[side] for side in key.split()), np.zeros(len(masks)))
    return total


def _centres(masks: Masks) -> Array:
    """Return each mask's centroid (x, y) in pixels: float64 (N, 2)."""
    centres = np.zeros((len(masks), 2))
    for row, bitmap in enumerate(masks.bitmaps):
        if bitmap.any():
            ys, xs = np.nonzero(bitmap)
            centres[row] = masks.boxes[row, :2] + (xs.mean() + 0.5, ys.mean() + 0.5)
    return centres
