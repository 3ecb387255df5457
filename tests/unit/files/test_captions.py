"""Captions are read from every format, and errors name the row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segclip.errors import BadTable
from segclip.files import captions
from segclip.files.captions import Caption


def read(folder: Path, name: str, content: str) -> list[Caption]:
    (folder / name).write_text(content, "utf-8")
    return list(captions.read(folder / name))


DOG, CAT = Caption("a.jpg", "a dog, running"), Caption("b.jpg", "a cat")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.csv", 'image,caption\na.jpg,"a dog, running"\nb.jpg,a cat\n'),
        ("captions.txt", "image,caption\na.jpg,a dog, running\nb.jpg,a cat\n"),
        ("Flickr8k.token.txt", "a.jpg#0\ta dog, running\nb.jpg#1\ta  cat\n"),
        ("lines.jsonl", ('{"image": "a.jpg", "caption": "a dog, running"}\n'
                        '{"image": "b.jpg", "caption": "a cat"}\n')),
    ],
)  # fmt: skip
def test_tables_are_read(tmp_path: Path, name: str, content: str) -> None:
    assert read(tmp_path, name, content) == [DOG, CAT]


def test_coco_and_karpathy_are_read(tmp_path: Path) -> None:
    coco = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": "x", "file_name": "b.jpg"}],
        "annotations": [
            {"image_id": "x", "caption": "a cat"},
            {"image_id": 7, "caption": "a dog, running"},
        ],
    }
    assert read(tmp_path, "coco.json", json.dumps(coco)) == [CAT, DOG]
    image = {
        "filename": "a.jpg",
        "filepath": "val2014",
        "split": "restval",
        "sentences": [{"raw": "a dog"}],
    }
    found = read(tmp_path, "karpathy.json", json.dumps({"images": [image]}))
    assert found == [Caption("val2014/a.jpg", "a dog", "restval")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "image,caption,split\na.jpg,a dog,middle\n", r"row 1.*'split'.*unknown split"),
        ("a.csv", "image,caption\n,a dog\n", "row 1.*names no image"),
        ("a.txt", "a.jpg#0\ta dog\nb.jpg\n", r"row 2.*expected NAME\.jpg#0"),
        ("a.json", '{"annotations": []}', "no list of images"),
        ("a.json", '{"images": [5]}', "row 1.*expected an object, got a int"),
        (
            "a.json",
            '{"images": [], "annotations": [{"image_id": 3, "caption": "x"}]}',
            "row 1.*no image has the id 3",
        ),
    ],
)
def test_an_error_names_its_row(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(BadTable, match=message):
        read(tmp_path, name, content)


@pytest.mark.parametrize(
    ("name", "split"), [("Validation", "val"), (" dev ", "val"), ("restval", "restval"), ("", "")]
)
def test_splits_have_several_names(name: str, split: str) -> None:
    assert captions.split_named(name) == split


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"images": []}, True),
        ({"images": [], "annotations": [{"caption": "a dog"}]}, True),
        ({"images": [], "annotations": [{"bbox": [1, 2, 3, 4]}]}, False),
        ([], False),
    ],
)
def test_captions_are_distinguished_from_instances(table: Any, expected: bool) -> None:
    assert captions.is_captions(table) is expected
