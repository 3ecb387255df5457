"""Naming of true masks and heat maps, against values computed by hand on painted colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from segclip.errors import BadPrompt, Unsupported
from segclip.evaluation.datasets import Sample
from segclip.evaluation.localise import evaluate_heat, evaluate_regions
from segclip.types import Array, Image, Masks
from tests.fakes import COLOURS, FakeEncoder, colour_of


@pytest.fixture
def sample(sample_image: Image, tmp_path: Path) -> Sample:
    PIL.Image.fromarray(sample_image.pixels).save(tmp_path / "painted.png")
    names = ("red", "green", "blue")
    colours = colour_of(sample_image.pixels)
    dense = np.stack([colours == list(COLOURS).index(name) for name in names])
    size = sample_image.size
    none = np.zeros(3, bool)
    return Sample(tmp_path / "painted.png", Masks.from_dense(dense, size), names, ~none, (), none)


def test_every_region_is_named(sample: Sample, encoder: FakeEncoder) -> None:
    named = evaluate_regions(encoder, [sample])
    assert (named.regions, named.names, named.top) == (3, 3, (1.0, 1.0))
    assert dict(named.table())["region accuracy, top-1"] == "1.0000"


def test_nothing_to_name_is_refused(encoder: FakeEncoder) -> None:
    with pytest.raises(BadPrompt, match="big enough"):
        evaluate_regions(encoder, [])


class Exact(FakeEncoder):
    """Encode every pixel's colour; with ``sign`` -1, everything but that."""

    sign = 1.0

    def encode_dense(self, image: Image) -> Array:
        return (
            self.sign
            * np.eye(len(COLOURS), len(COLOURS) + 1, dtype=np.float32)[colour_of(image.pixels)]
        )


def test_heat_that_is_the_mask_is_perfect_and_its_opposite_is_not(
    sample: Sample, encoder: FakeEncoder
) -> None:
    found = evaluate_heat(Exact(), [sample])
    assert (found.maps, found.pointing, found.miou) == (3, 1.0, 1.0)
    assert dict(found.table())["pointing game"] == "1.0000"
    blind = Exact()
    blind.sign = -1.0
    assert evaluate_heat(blind, [sample]).pointing == 0
    with pytest.raises(Unsupported):
        evaluate_heat(encoder, [sample])
    with pytest.raises(BadPrompt, match="big enough"):
        evaluate_heat(encoder, [])
