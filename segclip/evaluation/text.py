"""Measure the whole line on labelled pictures: are the candidates there, is the right one named, is
absence noticed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..encoders import Serving
from ..errors import BadPrompt
from ..ranking.selection import Selection
from ..segmenter import Segmenter
from ..types import Array, Regions, Result
from .datasets import Sample

RIGHT = 0.5  # IoU from which an answer is the named object
SCALES = (4.0, 2.0, 0.5, 0.25, 0.125, 0.0625)  # of the encoder's own logit scale, tried beside it
BETTER = 0.01  # of ``Report.worth``: what another scale must gain


@dataclass(frozen=True)
class Asked:
    """Hold one question and its best answer, whatever the threshold.

    iou: of that answer with the nearest object of the name; 0 for an absent name or without
    candidates.
    """

    path: Path
    text: str
    present: bool
    probability: float
    iou: float


@dataclass(frozen=True)
class Report:
    """Hold what was measured.

    best_iou: for each askable object the highest IoU of any candidate. asked: every question put.
    candidates: regions an image, on average.
    """

    threshold: float
    best_iou: Array
    asked: tuple[Asked, ...] = field(repr=False)
    candidates: float

    @property
    def recall(self) -> float:
        """Give the share of askable objects that have a candidate of IoU 0.5 or more."""
        return _mean(self.best_iou >= RIGHT)

    @property
    def right(self) -> float:
        """Give the share of present names whose best answer is the object, whatever its
        probability.
        """
        return _mean([row.iou >= RIGHT for row in self._present])

    @property
    def mean_iou(self) -> float:
        """Give the mean IoU of the right answers."""
        return _mean([row.iou for row in self._present if row.iou >= RIGHT])

    def found(self, threshold: float | None = None) -> float:
        """Give the share of present names whose best answer is the object and reaches the
        threshold.
        """
        reached = self.threshold if threshold is None else threshold
        return _mean([row.iou >= RIGHT and row.probability >= reached for row in self._present])

    def silent(self, threshold: float | None = None) -> float:
        """Give the share of absent names that return nothing."""
        reached = self.threshold if threshold is None else threshold
        return _mean([row.probability < reached for row in self.asked if not row.present])

    def calibrated(self) -> float:
        """Return the threshold to store with the encoder; see ``fit_threshold``."""
        return fit_threshold([self])

    def worth(self, threshold: float) -> float:
        """Give 2 x found + silent: what is missed counts twice as much as what is named wrongly,
        which one sees.
        """
        return 2 * self.found(threshold) + self.silent(threshold)

    @property
    def fits(self) -> bool:
        """Tell whether a threshold can be fitted: names that are there were asked, and names that
        are not.
        """
        return {row.present for row in self.asked} == {True, False}

    @property
    def _present(self) -> list[Asked]:
        return [row for row in self.asked if row.present]

    def table(self) -> list[tuple[str, str]]:
        """Give the figures as rows of name and value, for people."""
        present = len(self._present)
        return [
            ("askable objects", str(len(self.best_iou))),
            ("candidates an image", f"{self.candidates:.1f}"),
            ("candidate recall at IoU 0.5", f"{self.recall:.3f}"),
            (f"right object by name, of {present}", f"{self.right:.3f}"),
            (f"found at threshold {self.threshold:.3f}", f"{self.found():.3f}"),
            (
                f"absent names that return nothing, of {len(self.asked) - present}",
                f"{self.silent():.3f}",
            ),
            ("mean IoU of right answers", f"{self.mean_iou:.3f}"),
            ("threshold that fits best here", f"{self.calibrated():.3f}" if self.fits else "-"),
        ]


def fit_threshold(reports: Sequence[Report]) -> float:
    """Return the lowest threshold at which the mean ``worth`` on several kinds of images is about
    as high as ever.

    About is within 0.005: less than a thousand questions can tell apart, and the curve's highest
    point is chance. Rounded down to four places, so that what reached it still does. Raises
    BadPrompt where ``fits`` is False.
    """
    if not all(report.fits for report in reports):
        raise BadPrompt(
            "a threshold is fitted to names that are there and names that are not; one kind is "
            "missing"
        )
    levels = np.unique([row.probability for report in reports for row in report.asked])
    worth = np.array([np.mean([report.worth(level) for report in reports]) for level in levels])
    lowest = float(levels[worth >= worth.max() - 0.005][0])
    return math.floor(lowest * 1e4) / 1e4


def evaluate_text(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Ask each picture for every name in it and for its absent names; ``tell`` hears how many
    pictures are done.
    """
    (report,) = _evaluate([segmenter], samples, tell)
    return report


def calibrate(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Report, Serving]:
    """Fit the threshold, and the logit scale where another than its own is better: what to store,
    and how it answers.

    Scores of patches are spread wider than those of crops; at the scale crops were trained with,
    all are 0 or 1. Raises BadPrompt where there are not both names that are there and names that
    are not.
    """
    serving, own = segmenter.serving, segmenter.encoder.logit_scale
    servings = [
        replace(serving, logit_scale=scale) for scale in (None, *(own * step for step in SCALES))
    ]
    reports = _evaluate([replace(segmenter, serving=one) for one in servings], samples, tell)
    thresholds = [report.calibrated() for report in reports]
    worth = np.array(
        [report.worth(threshold) for report, threshold in zip(reports, thresholds, strict=True)]
    )
    best = int(worth.argmax()) if worth.max() > worth[0] + BETTER else 0
    chosen = replace(reports[best], threshold=thresholds[best])
    return chosen, replace(servings[best], threshold=thresholds[best], calibrated=True)


def _evaluate(
    segmenters: Sequence[Segmenter], samples: Sequence[Sample], tell: Callable[[int, int], None]
) -> list[Report]:
    """Let several that differ in how they rank answer about the same regions, those of the
    first.
    """
    best_iou, candidates = [], []
    asked: list[list[Asked]] = [[] for _ in segmenters]
    for done, sample in enumerate(samples, 1):
        regions = segmenters[0].regions(sample.load())
        overlap = regions.masks.iou(sample.masks)  # (N, objects)
        best_iou.extend(overlap.max(axis=0, initial=0)[sample.askable])
        candidates.append(len(regions))
        present = tuple(dict.fromkeys(np.array(sample.names, object)[sample.askable]))
        for segmenter, answers in zip(segmenters, asked, strict=True):
            answers.extend(_ask(segmenter, regions, sample, present))
        tell(done, len(samples))
    mean = float(np.mean(candidates or 0))
    return [
        Report(segmenter.serving.threshold, np.array(best_iou), tuple(answers), mean)
        for segmenter, answers in zip(segmenters, asked, strict=True)
    ]


def _ask(
    segmenter: Segmenter, regions: Regions, sample: Sample, present: Sequence[str]
) -> list[Asked]:
    texts = [*present, *sample.absent]
    if not texts:
        return []
    result = segmenter.rank(regions, texts, selection=Selection(best=True))
    return [_answer(result, text, sample, text in present) for text in texts]


def _answer(result: Result, text: str, sample: Sample, present: bool) -> Asked:
    row = result.texts.index(text) if text in result.texts else None
    if row is None:
        return Asked(sample.path, text, present, 0.0, 0.0)
    named = [index for index, name in enumerate(sample.names) if name == text]
    iou = float(result.masks[[row]].iou(sample.masks[named]).max(initial=0))
    return Asked(sample.path, text, present, float(result.probability[row]), iou)


def _mean(values: Sequence[float] | Sequence[bool] | Array) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
