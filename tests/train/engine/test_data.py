"""The check of a data set finds its faults."""

from __future__ import annotations

from pathlib import Path

from tests.train.captions.test_tables import write_image
from train.captions import tables
from train.captions.tables import CaptionItem
from train.engine import data


def test_the_check_finds_faults(tmp_path: Path) -> None:
    items = [
        CaptionItem(write_image(tmp_path / f"{n}.png", 40 + n), (f"thing {n}",), f"{n}")
        for n in range(20)
    ]
    assert data.inspect(items).faults == ()
    validation = tables.split(items)[1][0]
    copied = next(item for item in tables.split(items)[0])
    assert isinstance(validation.image, Path)
    assert isinstance(copied.image, Path)
    validation.image.write_bytes(copied.image.read_bytes())
    (tmp_path / "broken.png").write_bytes(b"not an image")
    items += [
        CaptionItem(tmp_path / "broken.png", ("word " * 100,), "broken"),
        CaptionItem(write_image(tmp_path / "e.png", 99), ("",), "e"),
    ]
    report = data.inspect(items)
    rows = dict(report.rows)
    assert rows["images that cannot be read"] == "1"
    assert rows["captions truncated to 77 tokens"] == "1"
    assert rows["images on both sides of the split"] == "1"
    assert len(report.faults) == 3


def test_an_incomplete_known_data_set_is_reported(tmp_path: Path) -> None:
    assert len(data.verify("flickr8k", tmp_path)) == 2
    (tmp_path / "captions.txt").write_text("image,caption\na.jpg,a dog\n")
    (tmp_path / "Images").mkdir()
    faults = data.verify("flickr8k", tmp_path)
    assert "1 images listed, 8091 expected" in faults
    assert any("1 images are missing" in fault for fault in faults)
