"""Measure the whole pipeline on labelled images: candidate recall, right answers, rejections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..encoders import Serving
from ..ranking.outcomes import Outcomes, mean
from ..ranking.selection import Selection
from ..segmenter import Segmenter
from ..types import Array, Regions, Result
from .datasets import RIGHT, OnProgress, Sample, reporting, silent

SCALES = (4.0, 2.0, 0.5, 0.25, 0.125, 0.0625)  # multiples of the encoder's logit scale to try
BETTER = 0.01  # minimum gain in ``Report.worth`` for another scale to be preferred


@dataclass(frozen=True)
class ScoredQuery:
    """One text query and its best answer, whatever the threshold.

    iou: of that answer with the best-matching object of the name; 0 for an absent name or without
    candidates.
    """

    path: Path
    text: str
    present: bool
    probability: float
    iou: float


@dataclass(frozen=True)
class Report:
    """Figures of text queries on labelled images.

    best_iou: for each askable object the highest IoU of any candidate. candidates: mean number of
    regions per image.
    """

    threshold: float
    best_iou: Array
    queries: tuple[ScoredQuery, ...] = field(repr=False)
    candidates: float

    @property
    def recall(self) -> float:
        """Return the share of askable objects that have a candidate of IoU 0.5 or more."""
        return mean(self.best_iou >= RIGHT)

    @property
    def right(self) -> float:
        """Return the share of present names whose best answer is right, at any probability."""
        return mean([row.iou >= RIGHT for row in self._present])

    @property
    def mean_iou(self) -> float:
        """Return the mean IoU of the right answers."""
        return mean([row.iou for row in self._present if row.iou >= RIGHT])

    @property
    def outcomes(self) -> Outcomes:
        """Return the best answers without their texts and images."""
        absent = [row.probability for row in self.queries if not row.present]
        return Outcomes(
            np.array([row.probability for row in self._present]),
            np.array([row.iou >= RIGHT for row in self._present], bool),
            np.array(absent),
        )

    def found(self, threshold: float | None = None) -> float:
        """Return the share of present names whose best answer is right and at the threshold."""
        return self.outcomes.found(self.threshold if threshold is None else threshold)

    def silent(self, threshold: float | None = None) -> float:
        """Return the share of absent names that return nothing."""
        return self.outcomes.silent(self.threshold if threshold is None else threshold)

    def calibrated(self) -> float:
        """Return the threshold to store with the encoder; see ``fit_threshold``."""
        return self.outcomes.fit()

    @property
    def fits(self) -> bool:
        """Whether a threshold can be fitted: there are queries for present and absent names."""
        return self.outcomes.fits

    @property
    def _present(self) -> list[ScoredQuery]:
        return [row for row in self.queries if row.present]

    def table(self) -> list[tuple[str, str]]:
        """Return the figures as rows of name and value, for display."""
        present = len(self._present)
        return [
            ("askable objects", str(len(self.best_iou))),
            ("candidates per image", f"{self.candidates:.1f}"),
            ("candidate recall at IoU 0.5", f"{self.recall:.3f}"),
            (f"right object by name, of {present}", f"{self.right:.3f}"),
            (f"found at threshold {self.threshold:.3f}", f"{self.found():.3f}"),
            (
                f"absent names that return nothing, of {len(self.queries) - present}",
                f"{self.silent():.3f}",
            ),
            ("mean IoU of right answers", f"{self.mean_iou:.3f}"),
            ("threshold that fits best here", f"{self.calibrated():.3f}" if self.fits else "-"),
        ]


def evaluate_text(
    segmenter: Segmenter, samples: Sequence[Sample], report: OnProgress = silent
) -> Report:
    """Query each image with every askable name in it and with its absent names."""
    (measured,) = evaluate_servings(segmenter, [segmenter.serving], samples, report)
    return measured


def calibrate(
    segmenter: Segmenter, samples: Sequence[Sample], report: OnProgress = silent
) -> tuple[Report, Serving]:
    """Fit the threshold, and the logit scale if one other than the encoder's own is better.

    Return the report and the settings to store. Patch similarities are spread wider than those of
    crops: at the scale trained on crops, all probabilities are 0 or 1. Raises BadPrompt unless
    there are both present and absent names.
    """
    serving, own = segmenter.serving, segmenter.encoder.logit_scale
    servings = [
        replace(serving, logit_scale=scale) for scale in (None, *(own * step for step in SCALES))
    ]
    reports = evaluate_servings(segmenter, servings, samples, report)
    thresholds = [one.calibrated() for one in reports]
    worth = np.array(
        [one.outcomes.worth(level) for one, level in zip(reports, thresholds, strict=True)]
    )
    best = int(worth.argmax()) if worth.max() > worth[0] + BETTER else 0
    chosen = replace(reports[best], threshold=thresholds[best])
    return chosen, replace(servings[best], threshold=thresholds[best], calibrated=True)


def evaluate_servings(
    segmenter: Segmenter,
    servings: Sequence[Serving],
    samples: Sequence[Sample],
    report: OnProgress = silent,
) -> list[Report]:
    """Evaluate settings that differ only in ranking, all on the regions of the segmenter."""
    segmenters = [replace(segmenter, serving=one) for one in servings]
    best_iou, candidates = [], []
    queries: list[list[ScoredQuery]] = [[] for _ in segmenters]
    for sample in reporting(samples, report):
        regions = segmenter.regions(sample.load())
        overlap = regions.masks.iou(sample.masks)  # (N, objects)
        best_iou.extend(overlap.max(axis=0, initial=0)[sample.askable])
        candidates.append(len(regions))
        present = tuple(dict.fromkeys(np.array(sample.names, object)[sample.askable]))
        for one, scored in zip(segmenters, queries, strict=True):
            scored.extend(_query(one, regions, sample, present))
    mean = float(np.mean(candidates or 0))
    return [
        Report(serving.threshold, np.array(best_iou), tuple(scored), mean)
        for serving, scored in zip(servings, queries, strict=True)
    ]


def _query(
    segmenter: Segmenter, regions: Regions, sample: Sample, present: Sequence[str]
) -> list[ScoredQuery]:
    texts = [*present, *sample.absent]
    if not texts:
        return []
    result = segmenter.rank(regions, texts, selection=Selection(best=True))
    return [_answer(result, text, sample, text in present) for text in texts]


def _answer(result: Result, text: str, sample: Sample, present: bool) -> ScoredQuery:
    if text not in result.texts:
        return ScoredQuery(sample.path, text, present, 0.0, 0.0)
    row = result.texts.index(text)
    iou = sample.iou(result.masks[[row]], text)
    return ScoredQuery(sample.path, text, present, float(result.probability[row]), iou)
