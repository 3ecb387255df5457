"""Draw random clicks and boxes, as an annotator would place them, to train a promptable network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from segclip.types import Array


@dataclass(frozen=True)
class ClickPrompt:
    """A prompt for one object: clicks and a box, in px.

    clicks: x, y, label (1 on the object, 0 beside it). box: x1, y1, x2, y2.
    """

    clicks: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None

    def corrected(self, click: tuple[float, float, int]) -> ClickPrompt:
        """Return the prompt with another click."""
        return replace(self, clicks=(*self.clicks, click))


def first_prompt(rng: np.random.Generator, mask: Array) -> ClickPrompt:
    """Prompt for an object, bool (H, W), with one click or a box, equally often.

    One box in three is loose, the others are exact.
    """
    if rng.random() < 0.5:
        return ClickPrompt(((*inside(rng, mask), 1),))
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], np.float64)
    if rng.random() < 0.33:
        box += rng.normal(0, 0.05, 4).clip(-0.12, 0.12) * np.tile(box[2:] - box[:2], 2)
    height, width = mask.shape
    x1, y1, x2, y2 = box.clip(0, (width, height, width, height)).tolist()
    return ClickPrompt(box=(x1, y1, x2, y2))


def correction(rng: np.random.Generator, truth: Array, predicted: Array) -> tuple[int, int, int]:
    """Click where a predicted mask, bool (H, W), is wrong: x, y, label.

    Without an error the click is a positive one on the object.
    """
    missing, surplus = truth & ~predicted, predicted & ~truth
    label = int(missing.sum() >= surplus.sum())
    wrong = missing if label else surplus
    return (*inside(rng, wrong if wrong.any() else truth), label)


def inside(rng: np.random.Generator, mask: Array) -> tuple[int, int]:
    """Pick a pixel of a mask: x, y. Half the time it is the one farthest from the edge."""
    if rng.random() < 0.5:
        depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
    else:
        places = np.flatnonzero(mask)
        y, x = divmod(int(places[rng.integers(len(places))]), mask.shape[1])
    return int(x), int(y)
