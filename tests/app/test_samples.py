"""The sample images, with their texts."""

from __future__ import annotations

import pytest

import segclip
from app.samples import FIRST, TEXTS
from app.settings import SAMPLES

each = pytest.mark.parametrize


def test_every_sample_lies_in_the_folder() -> None:
    assert FIRST in TEXTS
    images = {path.name for path in SAMPLES.iterdir() if path.suffix in segclip.IMAGE_SUFFIXES}
    assert images == {*TEXTS}


@pytest.mark.slow
@each("name", TEXTS)
def test_the_shipped_models_find_the_text_of_a_sample(name: str, mini: segclip.Segmenter) -> None:
    assert mini(SAMPLES / name, TEXTS[name]).unanswered == ()
