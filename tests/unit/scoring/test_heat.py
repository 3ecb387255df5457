"""Heat maps have the size of the image, and every pixel is labelled with a text or nothing."""

from __future__ import annotations

import numpy as np

from segclip.scoring.heat import NOTHING, heat_maps, label_pixels
from segclip.types import Image
from tests.fakes import COLOURS, Coarse, colour_of


def test_maps_have_the_size_of_the_image(sample_image: Image) -> None:
    maps = heat_maps(Coarse(), sample_image, ["red", "blue"])
    assert maps.shape == (2, *sample_image.size)
    assert heat_maps(Coarse(), sample_image, []).shape == (0, *sample_image.size)
    hottest = np.unravel_index(maps[0].argmax(), sample_image.size)
    assert list(COLOURS)[colour_of(sample_image.pixels)[hottest]] == "red"


def test_pixels_are_labelled_with_a_text_or_nothing(sample_image: Image) -> None:
    labels = label_pixels(Coarse(), sample_image, ["red", "blue"])
    colours = colour_of(sample_image.pixels)
    for place, name in enumerate(("red", "blue")):
        assert np.mean((labels == place) == (colours == list(COLOURS).index(name))) > 0.9
    assert (labels == NOTHING).any()
    assert (label_pixels(Coarse(), sample_image, []) == NOTHING).all()
