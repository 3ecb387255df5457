"""Selecting candidates by position: inside boxes, away from points, nearest to a box."""

from __future__ import annotations

import numpy as np
import pytest

from segclip.errors import BadPrompt
from segclip.proposers import space
from segclip.types import Boxes, Everything, Masks, Points, Proposals

BOXES = np.array([(0, 0, 20, 20), (5, 5, 15, 15), (30, 30, 60, 50), (18, 0, 40, 20)])


@pytest.fixture
def proposals() -> Proposals:
    bitmaps = tuple(np.ones((y2 - y1, x2 - x1), bool) for x1, y1, x2, y2 in BOXES)
    return Proposals(Masks(BOXES, bitmaps, (60, 80)), np.array([0.9, 0.8, 0.7, 0.6]))


def kept(found: Proposals) -> list[float]:
    return [round(float(quality), 1) for quality in found.quality]


def test_everything_keeps_all_proposals(proposals: Proposals) -> None:
    assert space.keep_within(proposals, Everything()) is proposals


def test_only_masks_inside_a_box_and_off_the_points_are_kept(proposals: Proposals) -> None:
    assert kept(space.keep_within(proposals, Everything(inside=[(0, 0, 25, 25)]))) == [0.9, 0.8]
    assert kept(
        space.keep_within(proposals, Everything(inside=[(0, 0, 16, 16), (25, 25, 70, 55)]))
    ) == [0.8, 0.7]
    assert kept(space.keep_within(proposals, Everything(without=[(2, 2)]))) == [0.8, 0.7, 0.6]
    both = Everything(inside=[(0, 0, 25, 25)], without=[(2, 2)])
    assert kept(space.keep_within(proposals, both)) == [0.8]


def test_points_in_a_box_choose_the_nearest_to_it(proposals: Proposals) -> None:
    assert kept(space.at_points(proposals, Points([(10, 10)]))) == [0.9, 0.8]
    assert kept(space.at_points(proposals, Points([(10, 10)], box=(5, 5, 16, 16)))) == [0.8, 0.9]
    assert kept(space.at_points(proposals, Points([], box=(31, 31, 60, 50)))) == [0.7]
    assert kept(space.at_points(proposals, Points([(70, 5)], [1], box=(0, 40, 10, 50)))) == []


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Everything(inside=[(0, 0, 90, 20)]), r"x must lie in \[0, 80\]"),
        (Everything(without=[(80, 20)]), r"x must lie in \[0, 80\)"),
        (Points([(1, 1)], box=(0, 0, 10, 61)), r"y in \[0, 60\]"),
        (Boxes([(0, 0, 10, 10), (-1, 0, 5, 5)]), "leaves the image"),
    ],
)
def test_a_prompt_outside_the_image_is_refused(
    prompt: Everything | Points | Boxes, message: str
) -> None:
    with pytest.raises(BadPrompt, match=message):
        prompt.check((60, 80))


def test_a_prompt_must_be_finite_and_not_empty() -> None:
    for make in (
        lambda: Points([]),
        lambda: Points([(np.nan, 1)]),
        lambda: Everything(inside=[]),
        lambda: Boxes([]),
    ):
        with pytest.raises(BadPrompt, match="finite and at least one"):
            make()
    with pytest.raises(BadPrompt, match="one box"):
        Points([(1, 1)], box=[(0, 0, 1, 1), (0, 0, 2, 2)])
    with pytest.raises(BadPrompt, match="logits"):
        Points([(1, 1)], mask=np.zeros((4, 4), bool))
    assert Points([], mask=np.zeros((4, 4), np.float32)).xy.shape == (0, 2)
