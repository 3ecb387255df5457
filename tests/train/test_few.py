"""Captioned scenes of few objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from segclip.evaluation.datasets import read_folder
from train import few
from train.captions import tables
from train.scenes import write
from train.scenes.glyphs import Glyph


def test_few_objects_are_captioned_and_only_held_out_ones_are_outlined(
    glyphs: list[Glyph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "load_glyphs", lambda: glyphs)
    monkeypatch.setattr(few, "FEW", replace(few.FEW, every=2))
    few.write(tmp_path, 6, held_out=3)
    trained, validation = tables.split(tables.read(tmp_path))
    assert (len(trained), len(validation)) == (6, 3)
    assert {text for item in trained for text in item.captions} == {
        "a red disc",
        "a green slab",
    }  # every second
    for item, sample in zip(validation, read_folder(tmp_path), strict=True):
        assert item.image == sample.path
        assert set(item.captions) == {f"a {name}" for name in sample.names}
