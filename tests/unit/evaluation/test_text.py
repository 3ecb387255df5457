"""The figures of the model card measure what their names say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from segclip.evaluation.datasets import Sample
from segclip.evaluation.text import Report, ScoredQuery, calibrate, evaluate_text
from segclip.scoring.scorers import CropScorer
from segclip.segmenter import Segmenter
from segclip.types import Image, Masks
from tests.fakes import FakeEncoder, FakeProposer


@pytest.fixture
def segmenter(proposer: FakeProposer, encoder: FakeEncoder) -> Segmenter:
    return Segmenter(proposer, encoder, CropScorer(encoder))


def sample_of(
    folder: Path, sample_image: Image, boxes: dict[str, tuple[int, int, int, int]], *absent: str
) -> Sample:
    path = folder / "image.png"
    PIL.Image.fromarray(sample_image.pixels).save(path)
    windows = [(x1, y1, np.ones((y2 - y1, x2 - x1), bool)) for x1, y1, x2, y2 in boxes.values()]
    masks = Masks.from_windows(windows, sample_image.size)
    return Sample(
        path, masks, tuple(boxes), np.ones(len(boxes), bool), absent, np.zeros(len(boxes), bool)
    )


def test_right_answers_and_rejections_are_counted(
    segmenter: Segmenter, sample_image: Image, tmp_path: Path
) -> None:
    boxes = {"red": (10, 10, 50, 50), "green": (60, 20, 100, 80)}
    report = evaluate_text(segmenter, [sample_of(tmp_path, sample_image, boxes, "zebra", "yellow")])
    assert report.recall == report.right == report.found() == report.silent() == 1
    assert report.mean_iou == 1
    assert report.candidates == 3


def test_a_wrong_object_is_not_right_and_a_missed_one_not_recalled(
    segmenter: Segmenter, sample_image: Image, tmp_path: Path
) -> None:
    boxes = {"red": (60, 20, 100, 80), "blue": (0, 0, 8, 8)}  # labels that contradict the pixels
    report = evaluate_text(segmenter, [sample_of(tmp_path, sample_image, boxes)])
    assert report.right == report.found() == 0
    assert report.recall == 0.5  # the green box is a candidate, the corner is not


def test_an_answer_to_an_absent_name_lowers_silent(
    segmenter: Segmenter, sample_image: Image, tmp_path: Path
) -> None:
    report = evaluate_text(
        segmenter, [sample_of(tmp_path, sample_image, {"red": (10, 10, 50, 50)}, "green", "zebra")]
    )
    assert report.silent() == 0.5


def test_the_fitted_threshold_separates_present_and_absent_names() -> None:
    path = Path("a.png")
    present = [ScoredQuery(path, "x", True, probability, 0.9) for probability in (0.5, 0.6, 0.7)]
    absent = [ScoredQuery(path, "y", False, probability, 0.0) for probability in (0.1, 0.2, 0.3)]
    report = Report(0.9, np.ones(3), (*present, *absent), 1.0)
    assert report.found() == 0
    fitted = report.calibrated()
    assert report.found(fitted) == report.silent(fitted) == 1


def test_the_lowest_of_about_equal_thresholds_is_fitted() -> None:
    path = Path("a.png")
    present = [
        ScoredQuery(path, "x", True, probability, 0.9)
        for probability in np.linspace(0.3, 0.9, 1000)
    ]
    absent = [
        ScoredQuery(path, "y", False, probability, 0.0)
        for probability in [0.05] * 500 + [0.3005] * 2 + [0.95] * 498
    ]
    report = Report(0.9, np.ones(1000), (*present, *absent), 1.0)
    # above 0.3005 two more absent names return nothing: 0.002
    assert report.calibrated() == pytest.approx(0.3)


def test_a_saturated_logit_scale_is_lowered_and_its_threshold_fitted(
    segmenter: Segmenter, sample_image: Image, tmp_path: Path
) -> None:
    samples = [sample_of(tmp_path, sample_image, {"red": (10, 10, 50, 50)}, "red and green")]
    assert evaluate_text(segmenter, samples).silent(0.9999) == 0
    report, serving = calibrate(segmenter, samples)
    assert serving.calibrated
    assert serving.logit_scale is not None
    assert serving.logit_scale < segmenter.encoder.logit_scale
    assert report.threshold == serving.threshold
    assert report.found() == report.silent() == 1
    again = evaluate_text(replace(segmenter, serving=serving), samples)
    assert again.found() == again.silent() == 1


def test_a_good_logit_scale_is_kept(
    segmenter: Segmenter, sample_image: Image, tmp_path: Path
) -> None:
    before = segmenter.serving
    report, serving = calibrate(
        segmenter, [sample_of(tmp_path, sample_image, {"red": (10, 10, 50, 50)}, "green zebra")]
    )
    assert segmenter.serving == before
    assert (serving.logit_scale, serving.threshold) == (None, report.threshold)


def test_nothing_to_measure_is_no_error(segmenter: Segmenter) -> None:
    report = evaluate_text(segmenter, [])
    assert np.isnan(report.recall)
    assert len(report.table()) == 8
