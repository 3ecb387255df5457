"""A query of texts, an example image, or both."""

from __future__ import annotations

from pathlib import Path

import pytest

from segclip import Example, Index, Query, Segmenter, make_index
from segclip.errors import BadPrompt
from segclip.scoring.scorers import CropScorer
from tests.fakes import FakeProposer
from tests.indexes import DEEP, names


def test_negatives_images_and_both(photos: Path) -> None:
    make_index(photos, DEEP)
    index = Index(photos)
    found = index.search(Query("red yellow"), n=3)
    assert "two.png" in names(found)
    without = index.search(Query("red", negatives=("yellow",)), n=9)
    assert "two.png" not in names(without)  # more yellow than red
    assert names(without)[0] == "red.png"
    alike = index.search(Query(image=photos / "green.png"), n=2)
    assert names(alike)[0] == "green.png"
    assert alike[0].similarity == pytest.approx(1, abs=1e-3)
    both = index.search(Query("blue", image=photos / "green.png"), n=9, regions=True)
    assert names(index.search(Query("blue"), n=1, regions=True)) == ["sub dir/é🦁.png"]
    assert both[0].name == "sub dir/é🦁.png"
    assert [match.similarity for match in both] == sorted(
        (match.similarity for match in both), reverse=True
    )
    with pytest.raises(BadPrompt, match="both asked for and ruled out"):
        index.search(Query("red", negatives=("red",)))


def test_a_concept_finds_images_and_regions(photos: Path, tmp_path: Path) -> None:
    make_index(photos, DEEP)
    index = Index(photos)
    encoder = index.encoder
    green = Segmenter(FakeProposer(), encoder, CropScorer(encoder)).concept(
        "leaf", [Example(photos / "green.png")]
    )
    path = green.save(tmp_path / "leaf.concept")
    assert names(index.search(Query(f"@{path}"), n=1)) == ["green.png"]
    assert names(index.search(Query(f"@{path}"), n=1, regions=True)) == ["green.png"]
    without = index.search(Query("green", negatives=(f"@{path}",)), n=9)
    assert "green.png" not in names(without)
    with pytest.raises(BadPrompt, match="for segmenting only"):
        index.search(Query(f"left @{path}"))
