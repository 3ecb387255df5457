"""Labelled photos are read with the names of their objects."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from train.scenes import photos
from train.scenes.photos import load_photos


def test_photos_are_read_with_names_and_limited_per_source(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    images, things = [], []
    for number in range(20):
        file = f"{number:02d}.png"
        cv2.imwrite(str(tmp_path / "images" / file), np.zeros((40, 50, 3), np.uint8))
        source = "clothes" if number % 2 else "coco"
        images.append(
            {"id": number, "file_name": file, "height": 40, "width": 50, "source": source}
        )
        for kind, part in ((1, np.s_[5:30, 5:30]), (2, np.s_[10:20, 10:20])):
            mask = np.zeros((40, 50), np.uint8)
            mask[part] = 1
            code = coco_mask.encode(np.asfortranarray(mask))
            outline = {"size": [40, 50], "counts": code["counts"].decode()}
            box = coco_mask.toBbox(code).tolist()
            thing = {
                "image_id": number,
                "category_id": kind,
                "area": int(mask.sum()),
                "iscrowd": 0,
                "bbox": box,
            }
            things.append(thing | {"segmentation": outline})
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "coat"}]
    table = {"images": images, "annotations": things, "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(table))
    found = load_photos(tmp_path, held_out=False, most={"clothes": 3})
    assert [photo.source for photo in found].count("clothes") == 3
    assert [photo.source for photo in found].count("coco") == 8
    assert len(load_photos(tmp_path, held_out=True)) == 20 // photos.HELD_OUT_EVERY
    for photo_ in found:
        whole = photo_.source == "clothes"
        assert photo_.names == (("person",) if whole else ("person", "coat"))
        assert photo_.labels[15, 15] == (1 if whole else 2)
        assert photo_.labels[7, 7] == 1
