"""Scenes are written so that they read back exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segclip import images
from segclip.errors import BadPrompt
from segclip.evaluation.datasets import read_folder
from train.scenes import compose as scenes
from train.scenes import write
from train.scenes.compose import compose
from train.scenes.glyphs import Glyph


def test_a_written_folder_reads_back_exactly(
    glyphs: list[Glyph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "load_glyphs", lambda: glyphs)
    seeds = range(scenes.VALIDATION_SEED, scenes.VALIDATION_SEED + 2)
    write.write_folder(tmp_path, seeds, [])
    for sample, seed in zip(read_folder(tmp_path), seeds, strict=True):
        scene = compose(seed, glyphs, [])
        assert np.array_equal(sample.masks.to_dense(), scene.masks.to_dense())
        assert np.array_equal(images.load(sample.path).pixels, scene.pixels)
        assert np.array_equal(sample.askable, scene.askable)
        present = {text for index in scene.glyphs for text in glyphs[index].texts}
        assert not present & set(sample.absent)


def test_training_seeds_are_no_validation_scenes(tmp_path: Path) -> None:
    with pytest.raises(BadPrompt, match="1000000"):
        write.main(tmp_path, count=1, first=5)


def test_the_shipped_scenes_are_validation_scenes_with_their_credits() -> None:
    table = json.loads(
        (Path(__file__).parents[2] / "data" / "scenes" / "scenes.json").read_text("utf-8")
    )
    assert len(table["images"]) == 60
    assert all(image["id"] >= scenes.VALIDATION_SEED for image in table["images"])
    assert all(
        "Attribution" in credit or "No known" in credit for credit in table["info"]["photos"]
    )
