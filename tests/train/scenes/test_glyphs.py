"""Drawn objects and the texts that name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from segclip.errors import WeightsMissing
from train.scenes import compose as scenes
from train.scenes import glyphs as glyph_module
from train.scenes.compose import SceneConfig, compose
from train.scenes.glyphs import Glyph, load_glyphs, meanings


def test_a_text_means_every_object_it_names(glyphs: list[Glyph]) -> None:
    found = meanings(glyphs)
    assert found["disc"] == (0, 1)
    assert found["red disc"] == (0,)


def test_phrases_distinguish_objects(glyphs: list[Glyph]) -> None:
    config = SceneConfig(size=(300, 600), objects=(2, 2), across=(50, 60), crowding=0.0)
    scene = compose(2, glyphs, [], config, wanted=[0, 2])
    red, green = scene.masks.boxes[:, [0, 2]].mean(axis=1)
    rise = scene.masks.boxes[:, [1, 3]].mean(axis=1)
    phrase = scenes.phrases(scene, 0, glyphs)[-1]
    if abs(red - green) > abs(rise[0] - rise[1]):
        assert phrase == f"the red disc {'right' if red > green else 'left'} of the green slab"
    else:
        assert phrase == f"the red disc {'below' if rise[0] > rise[1] else 'above'} the green slab"


def test_a_missing_font_reports_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="fonts-noto-color-emoji"):
        load_glyphs(tmp_path / "none.ttf")


@pytest.mark.skipif(
    not glyph_module.FONT.exists(), reason="fonts-noto-color-emoji is not installed"
)
def test_the_font_has_over_a_thousand_nameable_objects() -> None:
    found = load_glyphs()
    assert len(found) > 1000
    assert len({glyph.name for glyph in found}) == len(found)
    named = {glyph.name: glyph for glyph in found}
    assert "apple" in named["red apple"].texts
    assert "apple" in named["green apple"].texts
    assert named["red apple"].colour == "red"
