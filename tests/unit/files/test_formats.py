"""The formats offered are those that can be written."""

from __future__ import annotations

from segclip import exporters
from segclip.batch import collect
from segclip.files.formats import PER_IMAGE, PER_RUN


def test_every_format_of_an_image_has_a_writer_and_a_suffix_of_its_own() -> None:
    assert set(PER_IMAGE) == set(exporters.WRITERS)
    assert len(set(PER_IMAGE.values())) == len(PER_IMAGE)


def test_every_format_of_a_run_has_a_writer() -> None:
    assert set(PER_RUN) == set(collect.WRITERS)
