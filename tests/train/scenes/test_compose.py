"""Scenes match their labels and are reproducible; made of flat shapes, so no font is needed."""

from __future__ import annotations

import cv2
import numpy as np

from segclip.types import Array
from train.scenes.compose import SceneConfig, compose
from train.scenes.glyphs import Glyph
from train.scenes.photos import Photo

CONFIG = SceneConfig(size=(200, 300), objects=(4, 8), across=(30, 90))


def shape(kind: str, colour: tuple[float, float, float]) -> Array:
    pixels = np.zeros((100, 100, 4), np.float32)
    if kind == "disc":
        cv2.circle(pixels, (50, 50), 49, (*colour, 1.0), -1)
    else:
        pixels[5:95, 20:80] = (*colour, 1.0)
    return pixels


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
