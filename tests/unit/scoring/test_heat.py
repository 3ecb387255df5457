"""Heat maps have the size of the image, and every pixel is labelled with a text or nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from segclip import drawing, loading
from segclip.cli.main import app
from segclip.scoring.heat import NOTHING, heat_maps, label_pixels
from segclip.types import Array, Image
from tests.fakes import COLOURS, FakeEncoder, colour_of


class Coarse(FakeEncoder):
    """Encode the colour of every eighth pixel."""

    def encode_dense(self, image: Image) -> Array:
        return np.eye(len(COLOURS), len(COLOURS) + 1, dtype=np.float32)[
            colour_of(image.pixels[4::8, 4::8])
        ]


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


def test_heat_maps_and_labels_are_drawn(sample_image: Image) -> None:
    warm = np.zeros(sample_image.size, np.float32)
    warm[:4, :4] = 1
    drawn = np.asarray(drawing.heat(sample_image, warm, opacity=1.0))
    assert drawn[0, 0].argmax() == 0  # red where it is hot
    assert drawn[-1, -1].argmax() == 2  # blue where it is cold
    assert drawing.heat(sample_image, warm * 0).size == sample_image.size[::-1]
    labels = np.full(sample_image.size, NOTHING, np.int32)
    assert np.array_equal(np.asarray(drawing.labels(sample_image, labels)), sample_image.pixels)


def test_the_command_writes_an_image(
    sample_image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        loading,
        "load_encoder",
        lambda name, **options: Coarse() if name == "dense" else FakeEncoder(),
    )
    PIL.Image.fromarray(sample_image.pixels).save(tmp_path / "painted.png")
    arguments = [
        "heat",
        str(tmp_path / "painted.png"),
        "red",
        "blue",
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(app, [*arguments, "--encoder", "dense"])
    assert done.exit_code == 0, done.output
    assert PIL.Image.open(tmp_path / "out" / "painted.heat.png").size[0] > 600
    done = CliRunner().invoke(app, [*arguments, "--encoder", "crops"])
    assert done.exit_code == 2
