"""The figures of the model card are measured on photos that were never trained on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from train.region_crops import caltech_files
from train.release.report import CALIBRATION_SEED, VALIDATION_SEED


def test_every_fifth_photo_of_a_class_is_held_out(tmp_path: Path) -> None:
    for kind in ("cup", "dog"):
        (tmp_path / kind).mkdir()
        for number in range(10):
            cv2.imwrite(str(tmp_path / kind / f"{number}.jpg"), np.zeros((8, 8, 3), np.uint8))
    held, rest = (caltech_files(tmp_path, held_out=side) for side in (True, False))
    assert (len(held), len(rest)) == (4, 16)
    assert {label for _, label in held} == {0, 1}
    assert {path for path, _ in held}.isdisjoint(path for path, _ in rest)


def test_scenes_that_calibrate_are_not_those_that_measure() -> None:
    assert CALIBRATION_SEED - VALIDATION_SEED > 10_000
