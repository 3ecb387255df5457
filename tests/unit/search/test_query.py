"""A query of texts, an example image, or both."""

from __future__ import annotations

from pathlib import Path

import pytest

from segclip import Index, Query, make_index
from segclip.errors import BadPrompt
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
