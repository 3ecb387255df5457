"""Labelled images are read exactly from every mask format of COCO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco_mask

from segclip.errors import BadPrompt, BadTable
from segclip.evaluation.datasets import read_folder

SQUARE = [10.0, 10.0, 60.0, 10.0, 60.0, 40.0, 10.0, 40.0]


def folder_of(path: Path, *things: dict[str, Any], **image: Any) -> Path:
    images = [{"id": 7, "file_name": "a.png", "height": 80, "width": 100, **image}]
    rows = [
        {"id": row, "image_id": 7, "iscrowd": 0, "bbox": [10, 10, 50, 30], **thing}
        for row, thing in enumerate(things)
    ]
    categories = [
        {"id": number, "name": name}
        for number, name in enumerate(("cup", "dog", "kite", "bus", "cat"), 1)
    ]
    (path / "instances.json").write_text(
        json.dumps({"images": images, "annotations": rows, "categories": categories})
    )
    return path


def test_a_mask_is_read_the_same_from_polygon_plain_and_compressed_code(tmp_path: Path) -> None:
    compressed = coco_mask.merge(coco_mask.frPyObjects([SQUARE], 80, 100))
    flat = coco_mask.decode(compressed).ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    plain = {"size": [80, 100], "counts": np.diff([0, *edges, flat.size]).tolist()}
    code = {"size": [80, 100], "counts": compressed["counts"].decode()}
    things = [{"segmentation": form, "category_id": 1} for form in ([SQUARE], plain, code)]
    (sample,) = read_folder(folder_of(tmp_path, *things))
    assert sample.masks.boxes.tolist() == [[10, 10, 60, 40]] * 3
    assert sample.masks.areas.tolist() == [50 * 30] * 3


def test_crowds_and_small_objects_are_not_askable(tmp_path: Path) -> None:
    small = {"segmentation": [SQUARE], "category_id": 2, "bbox": [0, 0, 31, 20]}
    crowd = {"segmentation": [SQUARE], "category_id": 2, "iscrowd": 1}
    (sample,) = read_folder(
        folder_of(tmp_path, {"segmentation": [SQUARE], "category_id": 1}, small, crowd)
    )
    assert sample.names == ("cup", "dog", "dog")
    assert sample.askable.tolist() == [True, False, False]


def test_absent_names_are_those_of_the_file_or_drawn_from_the_others(tmp_path: Path) -> None:
    thing = {"segmentation": [SQUARE], "category_id": 1}
    (sample,) = read_folder(folder_of(tmp_path, thing))
    assert len(sample.absent) == 3
    assert "cup" not in sample.absent
    assert read_folder(tmp_path)[0].absent == sample.absent
    (listed,) = read_folder(folder_of(tmp_path, thing, absent=["bus"]))
    assert listed.absent == ("bus",)


def test_an_image_without_labels_is_a_sample(tmp_path: Path) -> None:
    (sample,) = read_folder(folder_of(tmp_path))
    assert len(sample.masks) == 0
    assert sample.masks.size == (80, 100)


def test_a_folder_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPrompt, match=r"neither scenes\.json nor instances\.json"):
        read_folder(tmp_path)


def test_an_image_of_another_size_than_in_its_table_is_refused(tmp_path: Path) -> None:
    """Fault 17.17c: a wrong height was a traceback once masks were compared."""
    (sample,) = read_folder(folder_of(tmp_path, {"segmentation": [SQUARE], "category_id": 1}))
    (tmp_path / "images").mkdir()
    PIL.Image.new("RGB", (100, 80)).save(sample.path)
    assert sample.load().size == (80, 100)
    PIL.Image.new("RGB", (80, 100)).save(sample.path)
    with pytest.raises(BadTable, match=r"a\.png is 100 x 80 .* its table says 80 x 100"):
        sample.load()


def test_an_invalid_table_is_reported_with_its_file(tmp_path: Path) -> None:
    """Fault 17.17c: through the folder that evaluate and training read."""
    folder_of(tmp_path, {"segmentation": None, "category_id": 1})
    with pytest.raises(
        BadTable, match=r"instances\.json, annotations\[0\] \(id 0\): segmentation is null"
    ):
        read_folder(tmp_path)
    (tmp_path / "instances.json").write_bytes(b"")
    with pytest.raises(BadTable, match=r"instances\.json: not JSON"):
        read_folder(tmp_path)
