"""The recipe of mini-sam: prompts, tiles, loss; it learns, stops, resumes and serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segclip.proposers.sam import SAM
from segclip.types import Array, Boxes, Points
from tests.networks import sample_image
from train.sam import SamRecipe, SamRun
from train.scenes.glyphs import Glyph
from train.scenes.material import Material


def disc(size: int = 120) -> Array:
    pixels = np.zeros((size, size, 4), np.float32)
    ys, xs = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    pixels[xs**2 + ys**2 < 0.9] = (0.9, 0.1, 0.1, 1)
    return pixels


GLYPHS = [Glyph("o", "red disc", ("red disc",), "red", disc())]


def run_in(folder: Path, trunk: Path) -> SamRun:
    run = SamRun(folder, SamRecipe(warm_up=1), Material(GLYPHS))
    run.start_from(trunk)
    return run


@pytest.mark.slow
def test_it_learns_stops_resumes_and_serves(tmp_path: Path, trunk: Path) -> None:
    whole = run_in(tmp_path / "a", trunk)
    whole.state.spent = 0.1 * 60 * SamRecipe.minutes  # answers are corrected from then on
    for _ in range(2):
        whole.update()
    whole.state.keep()
    resumed = run_in(tmp_path / "a", trunk)
    assert resumed.state.resume()
    for run in (whole, resumed):
        run.update()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    whole.export(tmp_path / "sam")
    served = SAM(tmp_path / "sam")
    features = served.encode(sample_image(240, 320))
    assert served.decode(features, Boxes([(20, 30, 180, 140)])).logits.shape == (1, 200, 200)  # type: ignore[union-attr]
    assert len(served.decode(features, Points([(100, 90)]))) <= 4
