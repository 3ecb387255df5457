"""Results are saved in the format of their name; nothing is overwritten half."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import segclip
from segclip import drawing, exporters
from segclip.errors import NotWritable, UnknownName
from segclip.files import formats
from segclip.types import Masks, Result
from tests.results import SIZE, blobs, make
from tests.thin import SIZES, striped


class TestSave:
    def test_the_suffix_chooses_overlay_or_json(self, result: Result, tmp_path: Path) -> None:
        for name in ("a.png", "a.JPG", "a.jpeg"):
            assert exporters.save(result, tmp_path / name) == [tmp_path / name]
            assert PIL.Image.open(tmp_path / name).size == (53, 37)
        exporters.save(result, str(tmp_path / "a.json"))
        assert json.loads((tmp_path / "a.json").read_text("utf-8"))["size"] == [37, 53]

    @pytest.mark.parametrize("format", formats.PER_IMAGE)
    def test_the_names_that_segment_writes_are_of_the_same_format(
        self, result: Result, tmp_path: Path, format: str
    ) -> None:
        name = f"a.{formats.PER_IMAGE[format]}"
        by_name = exporters.save(result, tmp_path / "by-name" / name)
        by_format = exporters.save(result, tmp_path / "by-format" / name, format=format)
        assert [path.name for path in by_name] == [path.name for path in by_format]
        for one, other in zip(by_name, by_format, strict=True):
            assert one.read_bytes() == other.read_bytes()

    def test_a_json_of_coco_holds_annotations(self, result: Result, tmp_path: Path) -> None:
        for name in ("z.coco.json", "Z.COCO.JSON"):
            exporters.save(result, tmp_path / name)
            assert "annotations" in json.loads((tmp_path / name).read_text("utf-8"))
        exporters.save(result, tmp_path / "coco.json")  # a name, not a format
        assert "rows" in json.loads((tmp_path / "coco.json").read_text("utf-8"))

    @pytest.mark.parametrize("format", ["png", "cutout"])
    def test_no_rows_write_no_file_a_row(self, empty: Result, tmp_path: Path, format: str) -> None:
        assert exporters.save(empty, tmp_path / "desk.png", format=format) == []
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(("name", "format"), [("a.png", "overlay"), ("a.json", "json")])
    def test_no_rows_still_write_the_summary_files(
        self, empty: Result, tmp_path: Path, name: str, format: str
    ) -> None:
        assert exporters.save(empty, tmp_path / name, format=format) == [tmp_path / name]

    def test_a_mask_without_pixels_has_a_png_and_no_cutout(self, tmp_path: Path) -> None:
        result = make(np.concatenate((np.zeros((1, *SIZE), bool), blobs(1))), ("a", "b"))
        assert len(exporters.save(result, tmp_path / "a.png", format="png")) == 2
        assert exporters.save(result, tmp_path / "b.png", format="cutout") == [
            tmp_path / "b.01.png"
        ]

    def test_unknown_format_and_suffix_list_the_choices(
        self, result: Result, tmp_path: Path
    ) -> None:
        with pytest.raises(
            UnknownName, match=r"did you mean 'coco'.*choices: coco, cutout, geojson"
        ):
            exporters.save(result, tmp_path / "a.json", format="coc")
        with pytest.raises(UnknownName, match=r"unknown file suffix '\.tga'.*\.json"):
            exporters.save(result, tmp_path / "a.tga")
        with pytest.raises(UnknownName, match="unknown image suffix"):
            exporters.save(result, tmp_path / "a.txt", format="overlay")

    def test_missing_folders_are_made(self, result: Result, tmp_path: Path) -> None:
        (file,) = exporters.save(result, tmp_path / "new" / "folder" / "a.json")
        assert file.is_file()

    def test_a_path_that_cannot_be_written_is_reported(
        self, result: Result, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(NotWritable, match="cannot be written"):
            exporters.save(result, tmp_path / "file" / "a.json")

    def test_a_failed_write_leaves_the_old_file_and_nothing_half_written(
        self, result: Result, tmp_path: Path
    ) -> None:
        path = tmp_path / "a.json"
        path.mkdir()  # a folder in the way: the rename fails after the bytes were written
        with pytest.raises(NotWritable, match="cannot be written"):
            exporters.save(result, path)
        assert list(tmp_path.iterdir()) == [path]

    def test_an_old_file_is_replaced(self, result: Result, empty: Result, tmp_path: Path) -> None:
        exporters.save(result, tmp_path / "a.json")
        exporters.save(empty, tmp_path / "a.json")
        assert json.loads((tmp_path / "a.json").read_text())["rows"] == []
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("size", SIZES)
def test_every_format_is_written(size: tuple[int, int], tmp_path: Path) -> None:
    image, masks = striped(size), Masks.from_dense(np.ones((2, *size), bool))
    regions = segclip.Regions(
        image, segclip.Proposals(masks, np.array([0.9, 0.8])), np.zeros((2, 1), np.float32)
    )
    scores = np.array([0.9, 0.8], np.float32)
    result = segclip.Result(regions, ("a", "b"), scores, scores, ("a", "b", "c"), 0.5)
    for name, ending in formats.PER_IMAGE.items():
        assert exporters.save(result, tmp_path / f"x.{ending}", format=name)
    drawing.spotlight(result)
    drawing.contact_sheet([drawing.overlay(result)], ["thin"])
