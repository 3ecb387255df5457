"""Settings compared on the same images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image

from segclip.encoders import BACKGROUNDS
from segclip.evaluation.datasets import Sample
from segclip.segmenter import Segmenter
from segclip.types import Masks
from tests.fakes import FakeEncoder, FakeProposer, paint
from train.release.rivals import choices, compare


def test_the_defaults_come_first_and_own_settings_last() -> None:
    encoder = FakeEncoder()
    own = encoder.serving
    named = choices(encoder)
    assert list(named) == [
        "five backgrounds",
        "and everyday names",
        "calibrated",
        "its own settings",
    ]
    assert named["five backgrounds"].backgrounds == BACKGROUNDS
    assert named["five backgrounds"].policy == own.policy
    assert named["and everyday names"].vocabulary
    assert named["its own settings"] == encoder.serving == own
    encoder.serving = replace(own, calibrated=False)
    assert "its own settings" not in choices(encoder)


def test_all_are_measured_on_the_same_queries(tmp_path: Path) -> None:
    image = paint(("red", (10, 10, 60, 60)))
    PIL.Image.fromarray(image.pixels).save(tmp_path / "a.png")
    red = Masks.from_windows([(10, 10, np.ones((50, 50), bool))], image.size)
    sample = Sample(
        tmp_path / "a.png", red, ("red",), np.ones(1, bool), ("zebra",), np.zeros(1, bool)
    )
    reports = compare(Segmenter(FakeProposer(), FakeEncoder()), [sample])
    assert {tuple(row.text for row in report.queries) for report in reports.values()} == {
        ("red", "zebra")
    }
    assert reports["its own settings"].right == 1
