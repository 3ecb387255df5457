"""The figures of the model card are measured on scenes that were never trained on."""

from __future__ import annotations

from train.release.report import CALIBRATION_SEED
from train.scenes.compose import VALIDATION_SEED


def test_scenes_that_calibrate_are_not_those_that_measure() -> None:
    assert CALIBRATION_SEED - VALIDATION_SEED > 10_000
