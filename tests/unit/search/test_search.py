"""An index is opened where it lies, and finds images by text."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest

from segclip import Index, find_matches, make_index
from segclip.errors import BadIndex, BadPrompt
from tests.indexes import (
    DEEP,
    names,
    square,
)


def test_a_text_finds_its_image_and_the_region_of_the_object(photos: Path) -> None:
    done = make_index(photos, DEEP)
    assert (done.images, len(done.failed), done.engine) == (6, 1, "numpy")
    assert "broken.jpg" in done.failed[0]

    index = Index(photos)
    assert names(index.search("a black square", n=1)) == ["sub dir/black.png"]
    whole = index.search("a blue square", n=9)
    deep = find_matches(index, "a blue square")
    assert deep[0].name == "sub dir/é🦁.png"
    assert deep[0].path == photos / "sub dir" / "é🦁.png"
    assert deep[0].box == (146, 100, 156, 110)
    assert deep[0].probability > 0.9
    assert whole[0].similarity < deep[0].similarity
    assert index.masks(deep[0]).areas.tolist() == [100]
    assert len({match.name for match in deep}) == len(deep)  # each image once


def test_an_index_beside_its_folder_and_one_that_moved_with_it(
    photos: Path, tmp_path: Path
) -> None:
    make_index(photos, DEEP, out=tmp_path / "beside")
    assert not (photos / ".segclip-index").exists()
    assert find_matches(tmp_path / "beside", "red")[0].path.is_file()
    make_index(photos)
    moved = photos.rename(tmp_path / "elsewhere")
    assert find_matches(moved, "red")[0].path.is_file()


def test_an_index_that_cannot_be_written_is_searched(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_index(photos, DEEP)
    wanted = find_matches(photos, "a blue square")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert find_matches(photos, "a blue square") == wanted


def test_bad_queries(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BadPrompt, match="segclip index FOLDER"):
        Index(photos)
    make_index(photos)
    index = Index(photos)
    for query in ("", "   "):
        with pytest.raises(BadPrompt, match="no text or image was given"):
            index.search(query)
    with pytest.raises(BadPrompt, match="n must be 1 or more"):
        index.search("red", n=0)
    assert names(index.search("red " * 5000, n=1)) == ["red.png"]
    assert "read only up to" in caplog.text
    (photos / ".segclip-index" / "index.json").write_text("{")
    with pytest.raises(BadIndex, match="damaged"):
        Index(photos)


def test_a_file_of_an_impossible_time_is_found(indexed: Path) -> None:
    for number, seconds in enumerate((-(10**9), 2**33)):
        square(indexed / f"{number}.png", "red", 20 + number)
        os.utime(indexed / f"{number}.png", (seconds, seconds))
    make_index(indexed)
    assert all(isinstance(match.taken, datetime) for match in Index(indexed).search("red", n=9))


def test_an_image_alone_is_compared_with_whole_images(photos: Path) -> None:
    make_index(photos, DEEP)
    best = find_matches(photos, image=photos / "two.png")[0]
    assert (best.name, best.region) == ("two.png", None)
    assert best.similarity == pytest.approx(1, abs=1e-3)
