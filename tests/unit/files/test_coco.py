"""COCO files: valid ones are read, and defects are reported by row and field."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from segclip.errors import BadTable
from segclip.files import coco

SQUARE = [10.0, 10.0, 60.0, 10.0, 60.0, 40.0, 10.0, 40.0]
CODE = {"size": [80, 100], "counts": [0, 8000]}
TABLE: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "a.png", "height": 80, "width": 100}],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 1,
            "bbox": [10, 10, 50, 30],
            "segmentation": [SQUARE],
        },
        {
            "id": 2,
            "image_id": 7,
            "category_id": 2,
            "bbox": [0, 0, 100, 80],
            "segmentation": CODE,
            "iscrowd": 1,
        },
    ],
    "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}],
}
FIRST, SECOND = ("annotations", 0), ("annotations", 1)
IMAGE, CUP = ("images", 0), ("categories", 0)
GONE = object()


def changed(path: tuple[str | int, ...], value: Any) -> Any:
    """Return a copy of the table with one value replaced, or removed if it is GONE."""
    table = copy.deepcopy(TABLE)
    row: Any = table
    for key in path[:-1]:
        row = row[key]
    if value is GONE:
        del row[path[-1]]
    else:
        row[path[-1]] = value
    return table


def test_a_valid_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(TABLE))
    table = coco.read(tmp_path / "a.json")
    (image,) = table.images
    assert (image.name, image.size, image.absent, image.licence) == ("a.png", (80, 100), None, "")
    assert [category.name for category in table.categories.values()] == ["cup", "dog"]
    assert table.masks(image).boxes.tolist() == [[10, 10, 60, 40], [0, 0, 100, 80]]
    assert [thing.crowd for thing in table.things[7]] == [False, True]


@pytest.mark.parametrize("key", ["7", -3, 0, 10**30])
def test_ids_are_numbers_or_texts(key: Any) -> None:
    table = copy.deepcopy(TABLE)
    for row in table["annotations"]:
        row["image_id"] = key
    table["images"][0]["id"] = key
    assert len(coco.instances(table, "t").things[key]) == 2


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("images",), GONE, "images is missing"),
        (("images",), None, "images is null"),
        (("images",), [], r"images is \[\]; expected at least one"),
        (("images",), {"id": 7}, "images is .* expected a list"),
        (IMAGE, 5, r"images\[0\] is 5"),
        ((*IMAGE, "id"), GONE, "id is missing"),
        ((*IMAGE, "id"), [7], "id is"),
        ((*IMAGE, "id"), True, "id is True"),
        ((*IMAGE, "id"), 8, "image_id is 7; expected an id that is in images"),
        ((*IMAGE, "height"), GONE, "height is missing"),
        ((*IMAGE, "height"), "80", "height is '80'"),
        ((*IMAGE, "height"), 80.5, "height is 80.5"),
        ((*IMAGE, "height"), 0, "height is 0"),
        ((*IMAGE, "height"), -80, "height is -80"),
        ((*IMAGE, "height"), 1_000_001, "height is 1000001; expected 100,000,000 pixels at most"),
        ((*IMAGE, "width"), 10**30, "expected 100,000,000 pixels at most"),
        ((*IMAGE, "width"), 101, "size is .*; expected the image's"),
        ((*IMAGE, "file_name"), GONE, "file_name is missing"),
        ((*IMAGE, "file_name"), "", "file_name is ''"),
        ((*IMAGE, "file_name"), "../../etc/passwd", "file_name .* expected a relative name"),
        ((*IMAGE, "file_name"), "/etc/passwd", "file_name .* expected a relative name"),
        ((*IMAGE, "file_name"), "a\\..\\..\\b.png", "file_name .* expected a relative name"),
        ((*IMAGE, "file_name"), "C:\\a.png", "file_name .* expected a relative name"),
        ((*IMAGE, "file_name"), "a\0.png", "file_name"),
        ((*IMAGE, "file_name"), "\ud800.png", "file_name"),
        ((*IMAGE, "absent"), "dog", "absent is 'dog'; expected a list of texts"),
        ((*IMAGE, "absent"), [None], "absent"),
        (("categories",), GONE, "categories is missing"),
        (("categories",), [], "category_id is 1; expected an id that is in categories"),
        (("categories", 1, "id"), 1, "id is 1; expected an id that no other row has"),
        ((*CUP, "name"), GONE, "name is missing"),
        ((*CUP, "name"), " ", "name is ' '"),
        ((*CUP, "name"), "\udfff", "name"),
        ((*CUP, "texts"), 5, "texts"),
        (("annotations",), GONE, "annotations is missing"),
        (("annotations",), "no", "annotations is 'no'"),
        (FIRST, None, r"annotations\[0\] is null"),
        ((*FIRST, "category_id"), 9, r"annotations\[0\] \(id 1\): category_id is 9"),
        ((*FIRST, "category_id"), {}, "category_id"),
        ((*SECOND, "image_id"), 9, r"annotations\[1\] \(id 2\): image_id is 9"),
        ((*FIRST, "bbox"), GONE, "bbox is missing"),
        ((*FIRST, "bbox"), [], "bbox"),
        ((*FIRST, "bbox"), [1, 2, 3], "bbox"),
        ((*FIRST, "bbox"), [1, 2, 3, float("nan")], "bbox"),
        ((*FIRST, "bbox"), [1, 2, 3, float("inf")], "bbox"),
        ((*FIRST, "bbox"), [1, 2, 3, "4"], "bbox"),
        ((*FIRST, "bbox"), [1, 2, -3, 4], "bbox"),
        ((*FIRST, "area"), "big", "area"),
        ((*FIRST, "area"), float("nan"), "area"),
        ((*FIRST, "iscrowd"), "yes", "iscrowd"),
        ((*FIRST, "askable"), 2, "askable"),
        ((*FIRST, "phrases"), [1], "phrases"),
        ((*FIRST, "segmentation"), GONE, "segmentation is missing"),
        ((*FIRST, "segmentation"), None, "segmentation is null"),
        ((*FIRST, "segmentation"), [], r"segmentation is \[\]"),
        ((*FIRST, "segmentation"), [[]], "segmentation"),
        ((*FIRST, "segmentation"), [[1, 2, 3, 4]], "three points"),
        ((*FIRST, "segmentation"), [[*SQUARE, 1]], "segmentation"),
        ((*FIRST, "segmentation"), [SQUARE, "x"], "segmentation"),
        ((*FIRST, "segmentation"), SQUARE, "segmentation"),
        ((*FIRST, "segmentation"), "x", "segmentation"),
        ((*FIRST, "segmentation"), [[1, 2, 3, 4, 5, float("nan")]], "finite"),
        ((*FIRST, "segmentation"), [[0, 0, 1e9, 0, 1e9, 1e9]], "near the image"),
        ((*FIRST, "segmentation"), [[0, 0, -500, 0, 9, 9]], "near the image"),
        ((*FIRST, "segmentation"), [[0, 0, 10**400, 0, 9, 9]], "finite"),
        ((*FIRST, "segmentation"), [[0, 0, 100, 80] * 30000], "outlines of 4,000,000 px"),
        ((*SECOND, "segmentation", "counts"), GONE, "counts is missing"),
        ((*SECOND, "segmentation", "counts"), 5, "counts is 5"),
        ((*SECOND, "segmentation", "size"), GONE, "size is missing"),
        ((*SECOND, "segmentation", "size"), [100, 80], r"size is \[100, 80\]; expected"),
    ],
)  # fmt: skip
def test_defects_are_reported_by_row_and_field(
    path: tuple[str | int, ...], value: Any, message: str
) -> None:
    """Fault 17.17c: such tables raised tracebacks, and a height of a million killed the process."""
    with pytest.raises(BadTable, match=message) as caught:
        coco.instances(changed(path, value), "t.json")
    assert str(caught.value).startswith("t.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("counts", ["", "zz", "oooo", [1], [8001], [-1, 8001], ["a"], [8000, 1.5]])
def test_an_invalid_code_is_reported_when_rasterised(counts: Any) -> None:
    """Fault 17.17c: invalid codes reached pycocotools."""
    table = coco.instances(changed((*SECOND, "segmentation", "counts"), counts), "t.json")
    with pytest.raises(
        BadTable,
        match=r"t\.json, annotations\[1\] \(id 2\): segmentation is not a valid run-length code",
    ):
        table.masks(table.images[0])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b" \n", "not JSON"),
        (b"[]", r"is \[\]; expected a JSON object"),
        (b"null", "is null"),
        (b"7", "is 7"),
        (b"{", "not JSON"),
        (b'{"images": [NaN]}', "NaN"),
        (b"\xff\xfe{}", "not UTF-8"),
        (bytes(100), "NUL"),
        (b"[" * 100_000 + b"]" * 100_000, "too deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too deep"),
        (b"1" * 5000, "JSON"),
    ],
)
def test_a_file_without_a_table_is_reported(tmp_path: Path, data: bytes, reason: str) -> None:
    """Fault 17.17c: an empty file, a list."""
    (tmp_path / "t.json").write_bytes(data)
    with pytest.raises(BadTable, match=reason) as caught:
        coco.read(tmp_path / "t.json")
    assert "t.json" in str(caught.value)


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero"), tmp_path / "none.json", Path("a\0b")):
        with pytest.raises(BadTable):
            coco.read(path)
