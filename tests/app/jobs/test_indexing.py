"""Indexing in the background."""

from __future__ import annotations

import time
from pathlib import Path

import PIL.Image
import pytest

from app.jobs.indexing import Indexing
from tests.app.zips import wait
from tests.fakes import paint

pytestmark = pytest.mark.usefixtures("fake_search")


def test_a_folder_is_indexed_again_only_where_it_changed(tmp_path: Path) -> None:
    folder, place = tmp_path / "photos", tmp_path / "index"
    folder.mkdir()
    for number in range(3):
        save(folder / f"{number}.png", number)
    (folder / "broken.png").write_bytes(b"no image")
    indexing = Indexing()
    indexing.start(folder, place, "mini")
    assert wait(indexing) == "done", indexing.message
    assert indexing.total == 4
    assert indexing.message.startswith("3 images, 3 regions, 1 could not be read")
    save(folder / "new.png", 9)
    indexing.start(folder, place, "mini")
    assert wait(indexing) == "done", indexing.message
    assert indexing.message.startswith("4 images, 4 regions")


def test_cancelled_indexing_keeps_its_work(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(30):
        save(folder / f"{number}.png", number)
    indexing = Indexing()
    indexing.start(folder, tmp_path / "index", "mini")
    while indexing.done < 3 and indexing.busy:
        time.sleep(0.002)
    indexing.cancel()
    assert wait(indexing) == "cancelled"
    assert 3 <= indexing.done < 30
    indexing.start(folder, tmp_path / "index", "mini")
    assert wait(indexing) == "done", indexing.message
    assert indexing.message.startswith("30 images")


def save(path: Path, number: int) -> None:
    PIL.Image.fromarray(paint(("red", (number + 1, 5, 40, 40))).pixels).save(path)


def test_indexing_reports_a_missing_folder(tmp_path: Path) -> None:
    indexing = Indexing()
    indexing.start(tmp_path / "nowhere", tmp_path / "index", "mini")
    assert wait(indexing) == "failed"
    assert "no such folder" in indexing.message
