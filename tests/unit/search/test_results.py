"""Matches as sheets, records, copies and links."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest

from segclip import Index, make_index
from segclip.errors import BadPrompt, NotWritable
from segclip.search import results
from tests.indexes import (
    DEEP,
    square,
)


def test_results_are_drawn_recorded_copied_and_linked(photos: Path, tmp_path: Path) -> None:
    make_index(photos, DEEP)
    index = Index(photos)
    found = index.search("a blue square", n=4, regions=True)
    sheet = results.write_sheet(index, found, tmp_path / "out" / "sheet.png")
    assert PIL.Image.open(sheet).width == 960  # three columns
    records = json.loads(json.dumps(results.to_records(index, found)))
    assert records[0]["box"] == [146, 100, 156, 110]
    assert records[0]["rle"]["size"] == [120, 160]
    copies = results.gather(found, tmp_path / "copies")
    assert copies[0].name == "1 é🦁.png"
    assert copies[0].read_bytes() == found[0].path.read_bytes()
    links = results.gather(found, tmp_path / "links", link=True)
    assert links[0].resolve() == found[0].path.resolve()
    with pytest.raises(BadPrompt, match="not an empty folder"):
        results.gather(found, tmp_path / "copies")
    with pytest.raises(BadPrompt, match=r"\.png or \.jpg"):
        results.write_sheet(index, found, tmp_path / "sheet.tiff2")
    found[0].path.unlink()  # deleted since indexing
    assert results.draw(index, found).width == 960


def test_fault_17_1_a_sheet_replaces_only_sheets(indexed: Path, tmp_path: Path) -> None:
    index = Index(indexed)
    found = index.search("red", n=3)
    own = tmp_path / "holiday.jpg"
    square(own, "green")
    link = tmp_path / "link.png"
    link.symlink_to(indexed / "green.png")
    folder = tmp_path / "folder.png"
    folder.mkdir()
    before = {
        path: path.read_bytes()
        for path in (indexed / "green.png", indexed / "sub" / "red.png", own)
    }
    for target in (*before, link, folder):
        with pytest.raises(NotWritable, match="--sheet"):
            results.write_sheet(index, found, target)
    assert {path: path.read_bytes() for path in before} == before
    for name in ("sheet.png", "sheet.jpg"):
        first = results.write_sheet(index, found, tmp_path / "new" / name).read_bytes()
        results.write_sheet(index, found[:1], tmp_path / "new" / name)
        assert (tmp_path / "new" / name).read_bytes() != first
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["sheet.jpg", "sheet.png"]
    assert (indexed / "green.png").is_file()
