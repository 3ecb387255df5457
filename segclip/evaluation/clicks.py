"""Measure a proposer in interactive labelling: simulated corrective clicks, and boxes.

The first click lies deepest inside the object, each later one deepest inside the larger error, as
in RITM (Sofiiuk et al. 2021, https://arxiv.org/abs/2102.06583) and SAM's own evaluation (Kirillov
et al. 2023, section D.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from ..errors import Unsupported
from ..proposers import Proposer
from ..types import Array, Boxes, Points, Proposals
from .datasets import OnProgress, Sample, reporting, silent


@dataclass(frozen=True)
class ClickReport:
    """IoU of each object's best-rated mask: after n clicks (keyed by n) and for its box."""

    clicks: dict[int, Array] = field(repr=False)
    boxes: Array = field(repr=False)

    def table(self) -> list[tuple[str, str]]:
        """Return the figures as rows of name and value, for display."""
        rows = [("objects", str(len(self.boxes)))]
        rows += [
            (f"mean IoU after {n} click{'s' * (n > 1)}", _mean(iou))
            for n, iou in self.clicks.items()
        ]
        return [*rows, ("mean IoU for the box", _mean(self.boxes))]


def evaluate_clicks(
    proposer: Proposer,
    samples: Sequence[Sample],
    counts: Sequence[int] = (1, 3, 5),
    report: OnProgress = silent,
) -> ClickReport:
    """Click on every askable object up to ``max(counts)`` times, and prompt with its box once."""
    clicks: dict[int, list[float]] = {count: [] for count in counts}
    boxes: list[float] = []
    for sample in reporting(samples, report):
        features = proposer.encode(sample.load())
        rows = np.flatnonzero(sample.askable & (sample.masks.areas > 0)).tolist()
        for row in rows:
            for count, iou in enumerate(
                simulate(proposer, features, sample.masks.full(row), max(counts)), 1
            ):
                if count in clicks:
                    clicks[count].append(iou)
        if len(rows):
            found = proposer.decode(features, Boxes(sample.masks.boxes[rows]))
            boxes.extend(
                _iou(found.masks.full(k), sample.masks.full(row)) for k, row in enumerate(rows)
            )
    return ClickReport({count: np.array(iou) for count, iou in clicks.items()}, np.array(boxes))


def simulate(proposer: Proposer, features: Any, truth: Array, count: int) -> list[float]:
    """Return the IoU of the best-rated mask after each of ``count`` clicks on one object.

    truth: bool (H, W).
    """
    predicted = np.zeros_like(truth)
    points: list[tuple[int, int]] = []
    labels: list[int] = []
    logits, ious = None, list[float]()
    for _ in range(count):
        x, y, label = next_click(truth, predicted)
        points.append((x, y))
        labels.append(label)
        found = _decode(proposer, features, Points(points, labels, mask=logits))
        if len(found):
            predicted = found.masks.full(0)
            logits = None if found.logits is None else found.logits[0]
        ious.append(_iou(predicted, truth))
    return ious


def next_click(truth: Array, predicted: Array) -> tuple[int, int, int]:
    """Return x, y and label of the next click: deepest in what is missing (1) or in excess (0).

    truth, predicted: bool (H, W).
    """
    missing, surplus = _depth(truth & ~predicted), _depth(predicted & ~truth)
    label = int(missing.max() >= surplus.max())
    depth = missing if label else surplus
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return int(x), int(y), label


def _decode(proposer: Proposer, features: Any, prompt: Points) -> Proposals:
    try:
        return proposer.decode(features, prompt)
    except Unsupported:  # the proposer cannot refine a mask
        return proposer.decode(features, Points(prompt.xy, prompt.labels))


def _depth(mask: Array) -> Array:
    """Return each pixel's distance to the background or the image border: float32 (H, W)."""
    padded = np.pad(mask, 1).astype(np.uint8)
    depth: Array = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    return depth


def _iou(a: Array, b: Array) -> float:
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / max(union, 1)


def _mean(values: Array) -> str:
    return f"{values.mean():.3f}" if len(values) else "nothing to measure"
