"""Measure proposals with pycocotools: AR over IoU 0.50 to 0.95, at 10, 100 and 1000 per image."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..exporters import encode_rle
from ..proposers import Proposer
from ..types import Array, Everything, Masks
from .datasets import OnProgress, Sample, reporting, silent

AT = (10, 100, 1000)
SIZES = ("all", "small", "medium", "large")  # COCO's: below 32 x 32 pixels, below 96 x 96, above


@dataclass(frozen=True)
class RecallReport:
    """Average recall of a proposer.

    recall: float64 (sizes, counts) in [0, 1], by SIZES and AT; NaN without such objects. objects:
    labelled objects. candidates: mean number per image.
    """

    recall: Array
    objects: int
    candidates: float

    def table(self) -> list[tuple[str, str]]:
        """Return the figures as rows of name and value, for display."""
        rows = [("objects", str(self.objects)), ("candidates per image", f"{self.candidates:.1f}")]
        for size, values in zip(SIZES, self.recall, strict=True):
            rows += [
                (f"AR@{count}, {size}", f"{value:.3f}")
                for count, value in zip(AT, values, strict=True)
            ]
        return rows


def evaluate_proposals(
    proposer: Proposer, samples: Sequence[Sample], report: OnProgress = silent
) -> RecallReport:
    """Propose everything in each image and compute average recall, whatever the names."""
    truths: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image, sample in enumerate(reporting(samples, report), 1):
        proposals = proposer.decode(proposer.encode(sample.load()), Everything())
        crowds = sample.crowd.astype(int).tolist()
        truths += _rows(sample.masks, image, len(truths) + 1, ("iscrowd", crowds))
        scores = proposals.quality.astype(float).tolist()
        found += _rows(proposals.masks, image, 1, ("score", scores))
    recall = _average_recall(truths, found, [sample.masks.size for sample in samples])
    return RecallReport(recall, len(truths), len(found) / max(len(samples), 1))


def _rows(
    masks: Masks, image: int, first: int, column: tuple[str, list[float]]
) -> list[dict[str, Any]]:
    """Return masks as COCO annotations with ids from ``first``. column: one more, with its name."""
    return [
        {
            "id": first + row,
            "image_id": image,
            "category_id": 1,
            "iscrowd": 0,
            "area": int(masks.areas[row]),
            "bbox": [int(x1), int(y1), int(x2 - x1), int(y2 - y1)],
            "segmentation": encode_rle(masks, row),
        }
        | {column[0]: column[1][row]}
        for row, (x1, y1, x2, y2) in enumerate(masks.boxes)
    ]


def _average_recall(
    truths: list[dict[str, Any]], found: list[dict[str, Any]], sizes: list[tuple[int, int]]
) -> Array:
    if not truths or not found:
        return np.full((len(SIZES), len(AT)), 0.0 if truths else np.nan)
    truth = COCO()
    images = [
        {"id": k, "height": height, "width": width} for k, (height, width) in enumerate(sizes, 1)
    ]
    truth.dataset = {"images": images, "categories": [{"id": 1}], "annotations": truths}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "segm")
        evaluation.params.maxDets = list(AT)
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"][:, 0]  # (IoU, sizes, counts); -1 where there is no object
    mean: Array = np.where((recall < 0).all(axis=0), np.nan, recall.mean(axis=0))
    return mean
