"""The set of labelled regions: its qualities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

from segclip.evaluation.datasets import Sample
from segclip.scoring.labelled import LabelledRegions, known_file
from segclip.types import Everything, Masks
from tests.fakes import FakeProposer, paint
from train.release.calibration import draw, qualities, with_qualities


def test_qualities_are_those_of_objects_and_of_what_is_none(tmp_path: Path) -> None:
    image = paint(("red", (10, 10, 60, 60)), ("blue", (90, 10, 140, 60)))
    PIL.Image.fromarray(image.pixels).save(tmp_path / "a.png")
    red = Masks.from_windows([(10, 10, np.ones((50, 50), bool))], image.size)
    sample = Sample(tmp_path / "a.png", red, ("red",), np.ones(1, bool), (), np.zeros(1, bool))
    right, rest = qualities(FakeProposer(), [sample])
    proposals = FakeProposer().decode(FakeProposer().encode(image), Everything())
    assert right.tolist() == [proposals.quality[0]]
    assert rest.tolist() == [proposals.quality[1]]


def test_named_regions_have_the_qualities_of_objects() -> None:
    regions = LabelledRegions.read(known_file())
    changed = with_qualities(regions, (np.array([0.8]), np.array([0.1])), np.random.default_rng(0))
    wanted = [np.float32(0.8 if name else 0.1) for name in regions.names]
    assert changed.quality.tolist() == wanted
    assert changed.names == regions.names


def test_the_sheet_holds_every_region() -> None:
    regions = LabelledRegions.read(known_file())
    sheet = draw(regions)
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] * sheet.shape[1] >= len(regions.names) * regions.pixels[0, ..., 0].size
