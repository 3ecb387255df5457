"""Data sets as distributed become images with captions, split by image; faults are reported."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from segclip.errors import BadPrompt, BadTable
from train import shapes
from train.captions import tables
from train.captions.tables import CaptionItem, Member


def write_image(path: Path, grey: int = 90, noise: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(noise or grey)
    PIL.Image.fromarray(rng.integers(0, grey + 1, (24, 32, 3), dtype=np.uint8)).save(path)
    return path


def captions_by_name(items: Sequence[CaptionItem]) -> dict[str, tuple[str, ...]]:
    return {Path(str(item.image)).name: item.captions for item in items}


BOTH = {"a.jpg": ("a dog, running", "one dog"), "b.jpg": ("a cat",)}


ROWS = [(name, caption) for name, captions in BOTH.items() for caption in captions]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.txt", 'image,caption\na.jpg,"a dog, running"\na.jpg,one dog\nb.jpg,a cat\n'),
        (
            "captions.txt",
            "image,caption\na.jpg,a dog, running\na.jpg,one dog\nb.jpg,a cat\n",
        ),  # a comma, unquoted
        ("plain.csv", 'a.jpg,"a dog, running"\na.jpg,one dog\nb.jpg,a cat\n'),
        (
            "results.csv",
            (
                "image_name| comment_number| comment\na.jpg| 0| a dog, running\na.jpg| 1| one "
                "dog\nb.jpg| 0| a cat\n"
            ),
        ),
        ("Flickr8k.token.txt", "a.jpg#0\ta dog, running\na.jpg#1\tone dog\nb.jpg#0\ta cat\n"),
        ("wide.tsv", "title\tfilepath\na dog, running\ta.jpg\none dog\ta.jpg\na cat\tb.jpg\n"),
        (
            "rows.jsonl",
            (
                '{"image": "a.jpg", "caption": ["a dog, running", "one dog"]}\n\n'
                '{"image": "b.jpg", "text": "a cat"}\n'
            ),
        ),
    ],
)
def test_tables_of_every_kind_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "Images").mkdir()
    items = tables.read(tmp_path / name)
    assert captions_by_name(items) == BOTH
    assert items[0].image == tmp_path / "Images" / "a.jpg"


def test_coco_and_karpathy_are_read(tmp_path: Path) -> None:
    coco = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
        "annotations": [
            {"image_id": {"a.jpg": 7, "b.jpg": 8}[name], "caption": text} for name, text in ROWS
        ],
    }
    (tmp_path / "captions.json").write_text(json.dumps(coco))
    assert captions_by_name(tables.read(tmp_path)) == BOTH
    karpathy = {
        "images": [
            {"filename": name, "split": split, "sentences": [{"raw": raw} for raw in BOTH[name]]}
            for name, split in (("a.jpg", "restval"), ("b.jpg", "val"))
        ]
    }
    (tmp_path / "dataset_flickr8k.json").write_text(json.dumps(karpathy))
    trained, validation = tables.split(tables.read(tmp_path / "dataset_flickr8k.json"))
    assert (set(captions_by_name(trained)), set(captions_by_name(validation))) == (
        {"a.jpg"},
        {"b.jpg"},
    )


def test_webdataset_shards_are_read_in_any_order(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard-000.tar", "w") as archive:
        for name, texts in BOTH.items():
            buffer = io.BytesIO()
            PIL.Image.new("RGB", (9, 7), {"a.jpg": "red", "b.jpg": "blue"}[name]).save(
                buffer, "JPEG"
            )
            captions = json.dumps({"caption": texts}).encode()
            for suffix, content in ((".jpg", buffer.getvalue()), (".json", captions)):
                info = tarfile.TarInfo(f"part/{name[0]}{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    items = tables.read(tmp_path)
    assert captions_by_name(items) == BOTH
    assert isinstance(items[1].image, Member)
    assert items[1].load().pixels.mean(axis=(0, 1)).argmax() == 2
    assert items[0].load().pixels.mean(axis=(0, 1)).argmax() == 0


def test_outlined_objects_become_regions_with_their_names(tmp_path: Path) -> None:
    shapes.write(tmp_path, 6, held_out=2)
    items = tables.read(tmp_path / "scenes.json")
    assert len(items) == 12
    assert all(item.region is not None and item.captions[0] in shapes.NAMES for item in items)
    assert len({item.group for item in items}) == 6


def test_class_folders_hold_out_every_fifth(tmp_path: Path) -> None:
    for kind in ("brain", "dollar_bill"):
        for number in range(5):
            write_image(tmp_path / kind / f"{number}.png", 50 + number)
    trained, validation = tables.split(tables.read(tmp_path))
    assert [item.captions for item in validation] == [("brain",), ("dollar bill",)]
    assert len(trained) == 8


def test_a_split_keeps_images_together_and_is_stable(tmp_path: Path) -> None:
    items = [
        CaptionItem(tmp_path / f"{n}.jpg", (f"first {n}", f"second {n}"), f"{n // 2}")
        for n in range(40)
    ]
    trained, validation = tables.split(items, 0.25)
    assert {item.group for item in trained}.isdisjoint(item.group for item in validation)
    assert len({item.group for item in validation}) == 5
    again = tables.split(list(reversed(items)), 0.25)[1]
    assert {item.group for item in again} == {item.group for item in validation}


def test_refcoco_images_are_left_out_by_any_spelling(tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text("[493652, 12]")
    items = [
        CaptionItem(tmp_path / name, ("x",), name)
        for name in ("COCO_train2014_000000493652.jpg", "000000000012.jpg", "3.jpg")
    ]
    assert [item.group for item in tables.exclude(items, tmp_path / "ids.json")] == ["3.jpg"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("x.json", "{}"), ("x.csv", "one,two,three\n1,2,3\n"), ("x.jsonl", '{"a": 1}'), ("x.zip", "")],
)
def test_files_without_captions_are_reported(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadTable, match=name):
        tables.read(tmp_path / name)


def test_one_image_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(BadPrompt, match="two images at least"):
        tables.split([CaptionItem(tmp_path / "a.jpg", ("x", "y"), "a.jpg")])
