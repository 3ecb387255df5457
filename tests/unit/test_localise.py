"""True masks are named as by hand, on painted colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from segclip.datasets import Sample
from segclip.errors import BadPrompt
from segclip.localise import evaluate_regions
from segclip.types import Image, Masks

from ..fakes import COLOURS, FakeEncoder, colour_of


@pytest.fixture
def sample(picture: Image, tmp_path: Path) -> Sample:
    PIL.Image.fromarray(picture.pixels).save(tmp_path / "painted.png")
    names = ("red", "green", "blue")
    seen = colour_of(picture.pixels)
    dense = np.stack([seen == list(COLOURS).index(name) for name in names])
    size = picture.size
    none = np.zeros(3, bool)
    return Sample(tmp_path / "painted.png", Masks.from_dense(dense, size), names, ~none, (), none)


def test_every_region_is_named(sample: Sample, encoder: FakeEncoder) -> None:
    named = evaluate_regions(encoder, [sample])
    assert (named.regions, named.names, named.top) == (3, 3, (1.0, 1.0))
    assert dict(named.table())["region accuracy, top-1"] == "1.0000"


def test_nothing_to_name_is_told(encoder: FakeEncoder) -> None:
    with pytest.raises(BadPrompt, match="big enough"):
        evaluate_regions(encoder, [])
