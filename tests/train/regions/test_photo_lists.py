"""Photos of data sets are split into those that are trained on and the others."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from train.regions.photo_lists import caltech_files, captions


def test_every_fifth_photo_of_a_class_is_held_out(tmp_path: Path) -> None:
    for kind in ("cup", "dog"):
        (tmp_path / kind).mkdir()
        for number in range(10):
            cv2.imwrite(str(tmp_path / kind / f"{number}.jpg"), np.zeros((8, 8, 3), np.uint8))
    held, rest = (caltech_files(tmp_path, held_out=side) for side in (True, False))
    assert (len(held), len(rest)) == (4, 16)
    assert {label for _, label in held} == {0, 1}
    assert {path for path, _ in held}.isdisjoint(path for path, _ in rest)


def test_every_fifth_caption_is_held_out_in_lower_case(tmp_path: Path) -> None:
    rows = "".join(f"{number}.jpg,A dog {number} .\n" for number in range(10))
    (tmp_path / "captions.txt").write_text("image,caption\n" + rows)
    held, rest = (captions(tmp_path, held_out=side) for side in (True, False))
    assert (len(held), len(rest)) == (2, 8)
    assert rest[0] == (tmp_path / "Images" / "0.jpg", "a dog 0")
