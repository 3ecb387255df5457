"""Scenes match their labels and are reproducible; made of flat shapes, so no font is needed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from segclip import images
from segclip.errors import BadPrompt, WeightsMissing
from segclip.evaluation.datasets import read_folder
from segclip.types import Array
from train import few
from train.captions import tables
from train.scenes import compose as scenes
from train.scenes import glyphs as glyph_module
from train.scenes import write
from train.scenes.compose import SceneConfig, compose
from train.scenes.glyphs import Glyph, load_glyphs, meanings
from train.scenes.photos import Photo

CONFIG = SceneConfig(size=(200, 300), objects=(4, 8), across=(30, 90))


def shape(kind: str, colour: tuple[float, float, float]) -> Array:
    pixels = np.zeros((100, 100, 4), np.float32)
    if kind == "disc":
        cv2.circle(pixels, (50, 50), 49, (*colour, 1.0), -1)
    else:
        pixels[5:95, 20:80] = (*colour, 1.0)
    return pixels


@pytest.fixture
def glyphs() -> list[Glyph]:
    return [
        Glyph("a", "red disc", ("red disc", "disc", "ball"), "red", shape("disc", (1, 0, 0))),
        Glyph("b", "blue disc", ("blue disc", "disc"), "blue", shape("disc", (0, 0, 1))),
        Glyph("c", "green slab", ("green slab", "slab"), "green", shape("slab", (0, 1, 0))),
        Glyph("d", "white slab", ("white slab", "slab"), "", shape("slab", (1, 1, 1))),
    ]


def test_a_seed_is_a_scene(glyphs: list[Glyph]) -> None:
    first, again, other = (
        compose(3, glyphs, [], CONFIG),
        compose(3, glyphs, [], CONFIG),
        compose(4, glyphs, [], CONFIG),
    )
    assert np.array_equal(first.pixels, again.pixels)
    assert first.glyphs == again.glyphs
    assert np.array_equal(first.masks.boxes, again.masks.boxes)
    assert not np.array_equal(first.pixels, other.pixels)


def test_masks_are_the_visible_parts_and_never_overlap(glyphs: list[Glyph]) -> None:
    for seed in range(8):
        scene = compose(seed, glyphs, [], CONFIG)
        dense = scene.masks.to_dense()
        assert dense.sum(axis=0).max(initial=0) <= 1
        for row, mask in enumerate(dense):
            assert np.array_equal(mask, scene.layers == row)
        assert ((scene.visible >= 0) & (scene.visible <= 1.0001)).all()


def test_a_mask_covers_its_colour(glyphs: list[Glyph]) -> None:
    scene = compose(
        11, glyphs[:1], [], SceneConfig(size=(200, 300), objects=(1, 1), across=(80, 80))
    )
    inside = scene.pixels[scene.masks.full(0)].astype(int)
    assert (inside[:, 0] > inside[:, 2] + 40).mean() > 0.95


def test_wanted_objects_come_first(glyphs: list[Glyph]) -> None:
    config = SceneConfig(size=(400, 600), objects=(3, 3), across=(30, 40))
    assert compose(5, glyphs, [], config, wanted=[2, 0, 3]).glyphs == (2, 0, 3)


def test_objects_of_a_background_photo_keep_their_labels(glyphs: list[Glyph]) -> None:
    labels = np.zeros((200, 300), np.int16)
    labels[:, 150:] = 1
    pixels = np.where(labels[..., None] > 0, 200, 20).astype(np.uint8).repeat(3, axis=2)
    config = SceneConfig(size=(200, 300), objects=(0, 0), photo_share=1.0)
    scene = compose(0, glyphs, [Photo(pixels, labels)], config)
    assert set(np.unique(scene.layers)) == {-2, -1}
    assert scene.pixels[scene.layers == -2].mean() > scene.pixels[scene.layers == -1].mean() + 80


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


def test_training_seeds_are_no_validation_scenes(tmp_path: Path) -> None:
    with pytest.raises(BadPrompt, match="1000000"):
        write.main(tmp_path, count=1, first=5)


def test_a_missing_font_reports_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="fonts-noto-color-emoji"):
        load_glyphs(tmp_path / "none.ttf")


def test_the_shipped_scenes_are_validation_scenes_with_their_credits() -> None:
    table = json.loads(
        (Path(__file__).parent.parent / "data" / "scenes" / "scenes.json").read_text("utf-8")
    )
    assert len(table["images"]) == 60
    assert all(image["id"] >= scenes.VALIDATION_SEED for image in table["images"])
    assert all(
        "Attribution" in credit or "No known" in credit for credit in table["info"]["photos"]
    )


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
