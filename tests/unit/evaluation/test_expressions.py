"""Figures of expressions agree with the protocols' formulas, on cases made by hand."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from segclip.evaluation.expressions import ExpressionOutcome, ReferringReport, assign
from segclip.files.referring import ONE, PHRASE, REGION, SEVERAL


def outcome(
    targets: int, answers: int, intersection: int = 0, union: int = 0, *matched: float
) -> ExpressionOutcome:
    return ExpressionOutcome("", targets, answers, intersection, union, matched)


def figures(kind: str, *outcomes: ExpressionOutcome) -> dict[str, float]:
    return dict(ReferringReport(kind, outcomes).figures())


def test_refcoco_counts_an_expression_without_an_answer_as_0() -> None:
    found = figures(ONE, outcome(1, 1, 50, 100), outcome(1, 1, 90, 100), outcome(1, 0, 0, 200))
    assert found["mIoU"] == pytest.approx(1.4 / 3)
    assert found["oIoU"] == pytest.approx(140 / 400)
    assert found["P@0.5"] == pytest.approx(2 / 3)  # 0.5 itself counts, as in LAVT's evaluation
    assert found["P@0.9"] == pytest.approx(1 / 3)
    assert found["expressions without an answer"] == 1


def test_grefcoco_rewards_silence_about_nothing() -> None:
    found = figures(
        SEVERAL,
        outcome(0, 0),  # right: IoU 1, and no pixel in the union
        outcome(0, 2, 0, 300),  # wrong: IoU 0, and its answer in the union
        outcome(2, 1, 80, 100),
        outcome(1, 0, 0, 100),  # missed
    )
    assert found["gIoU"] == pytest.approx((1 + 0 + 0.8 + 0) / 4)
    assert found["cIoU"] == pytest.approx(80 / 500)
    assert found["P@0.8"] == pytest.approx(1 / 2)  # of the two with targets
    assert (found["N-acc"], found["T-acc"]) == (0.5, 0.5)
    assert found["expressions without a target"] == 2


def test_phrasecut_has_mean_and_cumulative_iou() -> None:
    found = figures(REGION, outcome(2, 3, 30, 100), outcome(1, 0, 0, 100))
    assert found["mean IoU"] == pytest.approx(0.15)
    assert found["cumulative IoU"] == pytest.approx(0.15)
    assert found["P@0.3"] == 0.5
    assert found["phrases without an answer"] == 1


def test_cgf1_is_pmf1_times_mcc() -> None:
    found = figures(
        PHRASE,
        outcome(2, 2, 0, 0, 0.97, 0.62),  # one right at all ten levels, one at 0.5, 0.55, 0.6
        outcome(1, 0),  # missed: counts for recall and against MCC
        outcome(1, 3, 0, 0, 0.3),  # right at none
        outcome(0, 0),
        outcome(0, 1),  # its false positive counts in MCC only
    )
    # 2 TP / (answers + objects) of the three phrases with objects: 5 answers, 4 objects
    at_half, above = 2 * 2 / 9, 2 * 1 / 9
    pmf1 = (3 * at_half + 7 * above) / 10
    mcc = (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2)  # TP 2, TN 1, FP 1, FN 1
    assert found["pmF1"] == pytest.approx(pmf1)
    assert found["IL_MCC"] == pytest.approx(mcc)
    assert found["cgF1"] == pytest.approx(pmf1 * mcc)
    assert found["cgF1 at IoU 0.5"] == pytest.approx(at_half * mcc)


def test_perfect_answers_have_a_cgf1_of_1_and_answers_to_everything_of_0() -> None:
    right = outcome(1, 1, 0, 0, 1.0)
    assert figures(PHRASE, right, outcome(0, 0))["cgF1"] == 1
    assert figures(PHRASE, right, outcome(0, 1))["cgF1"] == 0


@pytest.mark.parametrize("kind", [ONE, SEVERAL, REGION, PHRASE])
def test_nothing_to_measure_is_no_error(kind: str) -> None:
    report = ReferringReport(kind, ())
    assert report.table()[0][1] == "0"
    assert all(name and value for name, value in report.table())


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (1, 1), (3, 2), (4, 4), (2, 5), (5, 3)])
def test_the_assignment_has_the_largest_sum(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        scores = np.round(rng.random(shape), 1) * (rng.random(shape) < 0.6)  # ties and zeros
        rows, columns = assign(scores)
        assert len(rows) == len(set(rows)) == len(set(columns)) == min(shape)
        few, many = sorted(shape)
        table = scores if shape[0] <= shape[1] else scores.T
        best = max(
            sum(table[row, column] for row, column in enumerate(chosen))
            for chosen in permutations(range(many), few)
        )
        assert scores[rows, columns].sum() == pytest.approx(best)
