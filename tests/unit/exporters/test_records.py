"""Records, COCO and run lengths hold every mask pixel-exact."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from segclip import exporters
from segclip.exporters import records
from segclip.types import Masks, Result
from tests.results import (
    CANVAS,
    MASKS,
    SIZE,
    blobs,
    decode,
    each_mask,
    result_of,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # pycocotools' own


@pytest.mark.parametrize("format", ["json", "coco"])
def test_rle(result: Result, tmp_path: Path, format: str) -> None:
    (file,) = exporters.save(result, tmp_path / "desk.json", format=format)
    record = json.loads(file.read_text("utf-8"))
    rles = (
        [row["rle"] for row in record["rows"]]
        if format == "json"
        else [a["segmentation"] for a in record["annotations"]]
    )
    assert [decode(rle).tolist() for rle in rles] == result.masks.to_dense().tolist()


class TestEncodeRle:
    @pytest.mark.parametrize(
        "paint",
        [
            np.s_[0:0, 0:0],
            np.s_[:, :],
            np.s_[0:1, 0:1],
            np.s_[-1:, -1:],
            np.s_[:, 3:9],  # whole columns: runs that touch become one
            np.s_[:, -1:],
            np.s_[5:6, :],
        ],
    )
    def test_is_what_coco_encodes(self, paint: tuple[slice, slice]) -> None:
        dense = np.zeros((1, *SIZE), bool)
        dense[0][paint] = True
        self.assert_same(Masks.from_dense(dense))

    @pytest.mark.parametrize("seed", range(10))
    def test_is_what_coco_encodes_for_ragged_masks(self, seed: int) -> None:
        self.assert_same(Masks.from_dense(blobs(1, seed)))

    @staticmethod
    def assert_same(masks: Masks) -> None:
        ours = exporters.encode_rle(masks, 0)
        theirs = coco_mask.encode(np.asfortranarray(masks.full(0).astype(np.uint8)))
        assert ours["size"] == list(SIZE)
        assert np.array_equal(decode(ours), masks.full(0))
        assert coco_mask.area(ours) == masks.areas[0]
        assert ours["counts"] == theirs["counts"].decode()


class TestRecord:
    def test_holds_every_column(self, result: Result) -> None:
        record = json.loads(json.dumps(exporters.to_record(result)))
        assert record["image"] == "photos/desk.jpg"
        assert record["size"] == [37, 53]
        assert record["asked"] == ["a mug", "a lamp", "ein Löwe 🦁"]
        assert record["threshold"] == 0.5
        assert [row["text"] for row in record["rows"]] == ["a mug", "a lamp", "a mug"]
        assert [row["similarity"] for row in record["rows"]] == [0.3, 0.25, 0.2]
        assert [row["probability"] for row in record["rows"]] == [0.9, 0.75, 0.6]
        assert [row["quality"] for row in record["rows"]] == [0.8, 0.6, 0.4]
        assert [row["area"] for row in record["rows"]] == result.masks.areas.tolist()
        assert [row["box"] for row in record["rows"]] == result.masks.boxes.tolist()

    def test_of_nothing_keeps_the_texts(self, empty: Result) -> None:
        record = exporters.to_record(empty)
        assert record["rows"] == []
        assert record["asked"] == ["a zebra"]


class TestCoco:
    def test_pycocotools_reads_it(self, result: Result, tmp_path: Path) -> None:
        (file,) = exporters.save(result, tmp_path / "desk.json", format="coco")
        dataset = COCO(str(file))
        assert dataset.loadImgs(1)[0] == {
            "id": 1,
            "file_name": "desk.jpg",
            "width": 53,
            "height": 37,
        }
        assert [c["name"] for c in dataset.loadCats(dataset.getCatIds())] == [
            "a mug",
            "a lamp",
            "ein Löwe 🦁",
        ]
        for row, annotation in enumerate(dataset.loadAnns(dataset.getAnnIds())):
            x, y, width, height = annotation["bbox"]
            assert [x, y, x + width, y + height] == result.masks.boxes[row].tolist()
            assert np.array_equal(
                dataset.annToMask(annotation).astype(bool), result.masks.full(row)
            )
            assert dataset.loadCats(annotation["category_id"])[0]["name"] == result.texts[row]
            assert annotation["score"] == pytest.approx(result.probability[row], abs=1e-6)

    def test_of_nothing(self, empty: Result, tmp_path: Path) -> None:
        (file,) = exporters.save(empty, tmp_path / "desk.json", format="coco")
        record = json.loads(file.read_text())
        assert record["annotations"] == []
        assert [category["name"] for category in record["categories"]] == ["a zebra"]


@each_mask
def test_coco_polygons(name: str) -> None:
    from pycocotools import mask as coco

    rle = records.encode_rle(result_of(MASKS[name]).masks, 0)
    polygons = records.coco_polygons(rle)
    if isinstance(polygons, dict):
        assert polygons == rle
        assert "hole" in name
        return
    decoded = coco.decode(coco.merge(coco.frPyObjects(polygons, *CANVAS))).astype(bool)
    assert np.array_equal(decoded, MASKS[name])
