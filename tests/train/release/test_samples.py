"""The samples that ship: every file is there, with its credit."""

from __future__ import annotations

from pathlib import Path

from train.release.samples import DRAWINGS, PHOTOS, SAMPLES

FOLDER = Path(__file__).parents[3] / "samples"


def test_every_sample_is_in_the_folder_and_in_its_readme() -> None:
    readme = (FOLDER / "README.md").read_text("utf-8")
    for sample in SAMPLES:
        assert (FOLDER / sample.name).is_file()
        assert sample.name in readme
        assert len(sample.texts) > 1
    assert all("CC0" in photo.credit for photo in PHOTOS)
    assert len({drawing.seed for drawing in DRAWINGS}) == len(DRAWINGS)
