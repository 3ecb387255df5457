"""Average recall: 1 for exact boxes, COCO's values for worse ones, crowds ignored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segclip.evaluation.proposals import evaluate_proposals
from segclip.types import Image
from tests.fakes import FakeProposer
from tests.unit.evaluation.test_text import sample_of

BOXES = {"red": (10, 10, 50, 50), "green": (60, 20, 100, 80), "blue": (110, 60, 150, 110)}


def test_every_object_found_exactly_is_a_recall_of_one(sample_image: Image, tmp_path: Path) -> None:
    report = evaluate_proposals(FakeProposer(), [sample_of(tmp_path, sample_image, BOXES)])
    assert report.recall[0].tolist() == [1, 1, 1]
    assert np.isnan(report.recall[3]).all()  # there is no large object
    assert (report.objects, report.candidates) == (3, 3)
    assert dict(report.table())["AR@10, medium"] == "1.000"


def test_a_loose_candidate_counts_up_to_its_iou(sample_image: Image, tmp_path: Path) -> None:
    loose = {"red": (10, 10, 50, 60)}  # IoU 0.8 with the candidate: found at 0.50, 0.55 ... 0.80
    report = evaluate_proposals(FakeProposer(), [sample_of(tmp_path, sample_image, loose)])
    assert report.recall[0, 0] == pytest.approx(0.7)


def test_a_crowd_is_ignored(sample_image: Image, tmp_path: Path) -> None:
    sample = sample_of(tmp_path, sample_image, {**BOXES, "crowd": (0, 100, 60, 119)})
    assert evaluate_proposals(FakeProposer(), [sample]).recall[0, 0] == pytest.approx(0.75)
    report = evaluate_proposals(
        FakeProposer(), [replace(sample, crowd=np.array([False] * 3 + [True]))]
    )
    assert report.recall[0, 0] == 1


def test_nothing_to_find_is_no_error(sample_image: Image, tmp_path: Path) -> None:
    assert np.isnan(evaluate_proposals(FakeProposer(), []).recall).all()
    assert np.isnan(
        evaluate_proposals(FakeProposer(), [sample_of(tmp_path, sample_image, {})]).recall
    ).all()
