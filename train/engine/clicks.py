"""Prompts as a labelling person would give them, at random, to train a promptable network with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from segclip.types import Array


@dataclass(frozen=True)
class Ask:
    """Ask for one object: clicks as x, y, label (1 on it, 0 beside it), and a box x1, y1, x2, y2,
    in px.
    """

    clicks: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None

    def corrected(self, click: tuple[float, float, int]) -> Ask:
        """Add a click."""
        return replace(self, clicks=(*self.clicks, click))


def first_ask(rng: np.random.Generator, mask: Array) -> Ask:
    """Ask for an object, bool (H, W), by one click or, half the time, by a box, exact or, of three
    one, loose.
    """
    if rng.random() < 0.5:
        return Ask(((*inside(rng, mask), 1),))
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], np.float64)
    if rng.random() < 0.33:
        box += rng.normal(0, 0.05, 4).clip(-0.12, 0.12) * np.tile(box[2:] - box[:2], 2)
    height, width = mask.shape
    x1, y1, x2, y2 = box.clip(0, (width, height, width, height)).tolist()
    return Ask(box=(x1, y1, x2, y2))


def correction(rng: np.random.Generator, truth: Array, shown: Array) -> tuple[int, int, int]:
    """Click where an answer is wrong, bool (H, W) both; on the object where nothing is: x, y,
    label.
    """
    missing, surplus = truth & ~shown, shown & ~truth
    label = int(missing.sum() >= surplus.sum())
    wrong = missing if label else surplus
    return (*inside(rng, wrong if wrong.any() else truth), label)


def inside(rng: np.random.Generator, mask: Array) -> tuple[int, int]:
    """Pick a pixel of a mask, half the time the deepest: x, y."""
    if rng.random() < 0.5:
        depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
    else:
        places = np.flatnonzero(mask)
        y, x = divmod(int(places[rng.integers(len(places))]), mask.shape[1])
    return int(x), int(y)
