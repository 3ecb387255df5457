"""Tiles of drawings, cut-outs and photographs match their layers, as do the proposer's batches."""

from __future__ import annotations

import numpy as np

from train.scenes.compose import SceneConfig
from train.scenes.glyphs import Glyph
from train.scenes.material import GREY, Material, Mixture, photo_tile
from train.scenes.photos import Photo

DRAWN = SceneConfig(objects=(1, 4), across=(30, 100))


def square() -> Glyph:
    pixels = np.zeros((60, 60, 4), np.float32)
    pixels[5:55, 5:55] = (0.9, 0.1, 0.1, 1)
    return Glyph("o", "red square", ("red square",), "red", pixels)


def photo(height: int = 240, width: int = 320) -> Photo:
    """A grey photo with one white object."""
    labels = np.zeros((height, width), np.int16)
    labels[60:180, 100:220] = 1
    pixels = np.where(labels[..., None] > 0, 230, 40).astype(np.uint8).repeat(3, axis=2)
    return Photo(pixels, labels, names=("box",))


def test_a_part_of_a_photo_keeps_its_labels_and_is_padded() -> None:
    codes = set()
    for seed in range(30):
        pixels, layers = photo_tile(np.random.default_rng(seed), photo(), 160, beyond=GREY)
        assert pixels.shape == (160, 160, 3)
        assert set(np.unique(layers)) <= {-1, -2}
        codes |= set(np.unique(layers))
        thing, rest = pixels[layers == -2], pixels[layers == -1]
        if len(thing) > 400 and len(rest) > 400:
            assert np.median(thing) > np.median(rest) + 60
    assert codes == {-1, -2}


def test_a_whole_photo_ends_in_padding() -> None:
    tiles = [photo_tile(np.random.default_rng(seed), photo(), 160, beyond=0) for seed in range(60)]
    padded = [(pixels == 0).all(axis=2).mean() for pixels, _ in tiles]
    assert max(padded) > 0.15  # a quarter of the square around it is outside the photo
    assert min(padded) < 0.01


def test_each_kind_of_tile_has_its_share() -> None:
    material = Material([square()], [], [photo()], Mixture(drawn=0.5, pasted=0.0))
    drawn = [(material.tile(seed, 128, DRAWN)[1] >= 0).any() for seed in range(60)]
    assert 15 < sum(drawn) < 45
    first, again = material.tile(5, 128, DRAWN), material.tile(5, 128, DRAWN)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
