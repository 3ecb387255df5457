"""Figures of referring expressions, by the protocol of each data set.

- RefCOCO: mean IoU over expressions, overall IoU (all intersections over all unions), and the share
  of expressions of an IoU of at least 0.5 and more (LAVT, Yang et al. 2022, arXiv:2112.02244)
- gRefCOCO: the same as gIoU and cIoU, where silence about nothing counts as IoU 1, and the accuracy
  on expressions with and without a target (GRES, Liu et al. 2023, arXiv:2306.00968, section 4.2)
- SA-Co: cgF1, the product of pmF1 over phrases with objects and of IL_MCC over all phrases (SAM 3,
  Carion et al. 2025, arXiv:2511.16719); without the constants of 1e-4 and less in the denominators
  of SAM 3's evaluator
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from ..files.referring import ONE, PHRASE, REGION, SEVERAL
from ..types import Array

LEVELS = np.linspace(0.5, 0.95, 10)  # minimum IoU of a match; those of COCO's average precision


@dataclass(frozen=True)
class ExpressionOutcome:
    """What was answered to one expression.

    targets, answers: numbers of objects. intersection, union: pixels of all answers and all targets
    together. matched: IoU of each answer matched to a target, one to one, for phrases. best: the
    highest IoU of any candidate with the target, for single targets. chosen: that candidate was the
    answer.
    """

    key: str
    targets: int
    answers: int
    intersection: int
    union: int
    matched: tuple[float, ...] = ()
    best: float = 0.0
    chosen: bool = False

    @property
    def iou(self) -> float:
        """Return the IoU; 0 where neither answers nor targets have a pixel."""
        return self.intersection / self.union if self.union else 0.0


Outcomes: TypeAlias = Sequence[ExpressionOutcome]
Figures: TypeAlias = list[tuple[str, float]]


@dataclass(frozen=True)
class ReferringReport:
    """Figures of a set of expressions. kind: of files.referring, which decides the protocol."""

    kind: str
    outcomes: tuple[ExpressionOutcome, ...] = field(repr=False)

    def figures(self) -> Figures:
        """Return the figures by name: whole numbers are counts, the others shares from 0 to 1.

        A figure of nothing is NaN.
        """
        return _FIGURES[self.kind](self.outcomes)

    def table(self) -> list[tuple[str, str]]:
        """Return the figures as rows of name and value, for display."""
        return [
            (name, f"{value:.4f}" if isinstance(value, float) else str(value))
            for name, value in self.figures()
        ]


def assign(scores: Array) -> tuple[Array, Array]:
    """Return the rows and columns of the one-to-one assignment of the largest sum: int64 (K,) each.

    scores: (N, M); K is the smaller. The Hungarian algorithm, by shortest augmenting paths.
    """
    if scores.shape[0] > scores.shape[1]:
        columns, rows = assign(scores.T)
        return rows, columns
    count, width = scores.shape
    cost = np.zeros((count + 1, width + 1))
    cost[1:, 1:] = -scores
    row_price, column_price = np.zeros(count + 1), np.zeros(width + 1)
    owner = np.zeros(width + 1, np.int64)  # row of each column; 0 is none, and column 0 the start
    for row in range(1, count + 1):
        owner[0], column = row, 0
        slack, before = np.full(width + 1, np.inf), np.zeros(width + 1, np.int64)
        visited = np.zeros(width + 1, bool)
        while owner[column]:
            visited[column] = True
            reduced = cost[owner[column]] - row_price[owner[column]] - column_price
            closer = ~visited & (reduced < slack)
            slack[closer], before[closer] = reduced[closer], column
            step_to = int(np.where(visited, np.inf, slack)[1:].argmin()) + 1
            step = slack[step_to]
            row_price[owner[visited]] += step
            column_price[visited] -= step
            slack[~visited] -= step
            column = step_to
        while column:
            owner[column] = owner[before[column]]
            column = int(before[column])
    columns = np.flatnonzero(owner[1:])
    return owner[1:][columns] - 1, columns


def _refcoco(outcomes: Outcomes) -> Figures:
    return [
        ("expressions", len(outcomes)),
        ("mIoU", _mean([row.iou for row in outcomes])),
        ("oIoU", _overall(outcomes)),
        *_precision(outcomes, (0.5, 0.6, 0.7, 0.8, 0.9)),
        ("expressions without an answer", sum(not row.answers for row in outcomes)),
        ("best candidate: mIoU", _mean([row.best for row in outcomes])),
        ("best candidate: share of IoU 0.5 or more", _mean([row.best >= 0.5 for row in outcomes])),
        ("best candidate chosen", _mean([row.chosen for row in outcomes])),
    ]


def _grefcoco(outcomes: Outcomes) -> Figures:
    targeted = [row for row in outcomes if row.targets]
    without = [row for row in outcomes if not row.targets]
    silent = [not row.answers for row in without]
    return [
        ("expressions", len(outcomes)),
        ("expressions without a target", len(without)),
        ("gIoU", _mean([*(row.iou for row in targeted), *map(float, silent)])),
        ("cIoU", _overall(outcomes)),
        *_precision(targeted, (0.7, 0.8, 0.9)),
        ("N-acc", _mean(silent)),
        ("T-acc", _mean([row.answers > 0 for row in targeted])),
    ]


def _phrasecut(outcomes: Outcomes) -> Figures:
    return [
        ("phrases", len(outcomes)),
        ("mean IoU", _mean([row.iou for row in outcomes])),
        ("cumulative IoU", _overall(outcomes)),
        *_precision(outcomes, (0.3, 0.5, 0.7, 0.9)),
        ("phrases without an answer", sum(not row.answers for row in outcomes)),
    ]


def _saco(outcomes: Outcomes) -> Figures:
    positive = [row for row in outcomes if row.targets]
    f1, correlation = _micro_f1(positive), _correlation(outcomes)
    return [
        ("phrases", len(outcomes)),
        ("phrases without an object", len(outcomes) - len(positive)),
        ("cgF1", float(f1.mean()) * correlation),
        ("cgF1 at IoU 0.5", float(f1[0]) * correlation),
        ("pmF1", float(f1.mean())),
        ("IL_MCC", correlation),
    ]


def _micro_f1(positive: Outcomes) -> Array:
    """Return pmF1 at each of LEVELS, over all objects of phrases that have any: float64 (10,)."""
    matched = np.array([iou for row in positive for iou in row.matched])
    right = (matched[None, :] >= LEVELS[:, None]).sum(axis=1)  # (10,)
    both = sum(row.targets + row.answers for row in positive)
    shares: Array = 2 * right / both if both else np.full(len(LEVELS), np.nan)
    return shares


def _correlation(outcomes: Outcomes) -> float:
    """Return Matthews' correlation of having an answer with having an object; 0 if undefined."""
    have = np.array([row.targets > 0 for row in outcomes], bool)
    answered = np.array([row.answers > 0 for row in outcomes], bool)
    tp, tn = int((have & answered).sum()), int((~have & ~answered).sum())
    fp, fn = int((~have & answered).sum()), int((have & ~answered).sum())
    product = float(tp + fp) * float(tp + fn) * float(tn + fp) * float(tn + fn)
    return (tp * tn - fp * fn) / product**0.5 if product else 0.0


def _overall(outcomes: Outcomes) -> float:
    union = sum(row.union for row in outcomes)
    return sum(row.intersection for row in outcomes) / union if union else float("nan")


def _precision(outcomes: Outcomes, levels: Sequence[float]) -> Figures:
    return [(f"P@{level:g}", _mean([row.iou >= level for row in outcomes])) for level in levels]


def _mean(values: Sequence[float] | Sequence[bool]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


_FIGURES: dict[str, Callable[[Outcomes], Figures]] = {
    ONE: _refcoco,
    SEVERAL: _grefcoco,
    REGION: _phrasecut,
    PHRASE: _saco,
}
