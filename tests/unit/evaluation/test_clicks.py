"""Simulated clicks: where they fall, that they correct errors, and the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segclip.errors import Unsupported
from segclip.evaluation.clicks import ClickReport, evaluate_clicks, next_click, simulate
from segclip.types import Array, Boxes, Image, Masks, Points, Prompt, Proposals
from tests.fakes import FakeProposer
from tests.unit.evaluation.test_text import sample_of


def box(x1: int, y1: int, x2: int, y2: int) -> Array:
    mask = np.zeros((60, 80), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def test_the_first_click_is_deepest_inside() -> None:
    x, y, label = next_click(box(10, 10, 31, 51), box(0, 0, 0, 0))
    assert 19 <= x <= 21
    assert 19 <= y <= 41
    assert label == 1
    x, y, _ = next_click(
        box(0, 0, 80, 60), box(0, 0, 0, 0)
    )  # the image border counts as background
    assert 28 <= x <= 51
    assert 28 <= y <= 31


def test_the_next_click_is_in_the_larger_error() -> None:
    truth = box(10, 10, 50, 50)
    assert next_click(truth, box(10, 10, 20, 50))[2] == 1  # most of it is missing
    x, _, label = next_click(truth, box(10, 10, 79, 50))
    assert label == 0  # too much
    assert x >= 50


class Refiner:
    """Return the object without its left half, until a second click corrects that."""

    def __init__(self, truth: Array) -> None:
        self.truth, self.prompts = truth, list[Points]()

    def encode(self, image: Image) -> Any:
        return image

    def decode(self, features: Any, prompt: Prompt) -> Proposals:
        assert isinstance(prompt, Points)
        self.prompts.append(prompt)
        mask = self.truth.copy()
        if len(prompt.xy) < 2:
            mask[:, :30] = False
        return Proposals(
            Masks.from_dense(mask[None]),
            np.array([0.9]),
            np.full((1, 4, 4), len(prompt.xy), np.float32),
        )


def test_each_click_refines_the_last_answer() -> None:
    truth = box(10, 10, 50, 50)
    refiner = Refiner(truth)
    assert simulate(refiner, None, truth, 3) == [0.5, 1.0, 1.0]
    assert [len(prompt.xy) for prompt in refiner.prompts] == [1, 2, 3]
    assert refiner.prompts[0].mask is None
    assert refiner.prompts[1].mask.tolist() == np.full((4, 4), 1.0).tolist()
    assert refiner.prompts[1].labels.tolist() == [1, 1]


class Stubborn(FakeProposer):
    """Refuse masks, as FastSAM does."""

    def decode(self, features: Any, prompt: Prompt) -> Proposals:
        if isinstance(prompt, Points) and prompt.mask is not None:
            raise Unsupported("no masks")
        found = super().decode(features, prompt)
        return (
            found
            if isinstance(prompt, Boxes)
            else Proposals(found.masks, found.quality, np.zeros((len(found), 4, 4)))
        )


@pytest.mark.parametrize("proposer", [FakeProposer(), Stubborn()])
def test_a_folder_is_measured_by_clicks_and_boxes(
    proposer: FakeProposer, sample_image: Image, tmp_path: Path
) -> None:
    sample = sample_of(
        tmp_path, sample_image, {"red": (10, 10, 50, 50), "green": (60, 20, 100, 80)}
    )
    report = evaluate_clicks(proposer, [sample], (1, 3))
    assert report.clicks[1].tolist() == report.clicks[3].tolist() == [1, 1]
    assert report.boxes.tolist() == [1, 1]
    assert dict(report.table())["mean IoU after 3 clicks"] == "1.000"


def test_nothing_to_measure_is_no_error() -> None:
    report = evaluate_clicks(FakeProposer(), [])
    assert isinstance(report, ClickReport)
    assert dict(report.table())["mean IoU for the box"] == "nothing to measure"
