from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import segclip
from segclip import drawing, exporters
from segclip.errors import NotWritable, UnknownName
from segclip.files import formats
from segclip.types import Array, Image, Masks, Proposals, Regions, Result
from tests.thin import SIZES, striped

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # pycocotools' own
SIZE = (37, 53)


def blobs(count: int, seed: int = 0) -> Array:
    """Draw ragged masks with holes and islands: bool (count, 37, 53)."""
    rng = np.random.default_rng(seed)
    dense = np.zeros((count, *SIZE), bool)
    for mask in dense:
        x1, y1 = int(rng.integers(0, 40)), int(rng.integers(0, 25))
        mask[y1 : y1 + 12, x1 : x1 + 13] = rng.random((12, min(13, 53 - x1))) > 0.4
    return dense


def make(dense: Array, texts: tuple[str, ...], queries: tuple[str, ...] | None = None) -> Result:
    rng = np.random.default_rng(1)
    count = len(dense)
    image = Image(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8), "photos/desk.jpg")
    quality = np.linspace(0.8, 0.4, count)
    regions = Regions(
        image, Proposals(Masks.from_dense(dense, SIZE), quality), np.zeros((count, 2), np.float32)
    )
    scores = np.linspace(0.3, 0.2, count).astype(np.float32)
    return Result(regions, texts, scores, scores * 3, queries or tuple(dict.fromkeys(texts)), 0.5)


@pytest.fixture
def result() -> Result:
    return make(blobs(3), ("a mug", "a lamp", "a mug"), ("a mug", "a lamp", "ein Löwe 🦁"))


@pytest.fixture
def empty() -> Result:
    return make(np.zeros((0, *SIZE), bool), (), ("a zebra",))


def decode(rle: dict[str, object]) -> Array:
    return coco_mask.decode(rle).astype(bool)


class TestW8MasksLeavePixelExact:
    """FastSAM saved what matplotlib had resampled."""

    def test_png(self, result: Result, tmp_path: Path) -> None:
        files = exporters.save(result, tmp_path / "desk.png", format="png")
        assert [file.name for file in files] == ["desk.00.png", "desk.01.png", "desk.02.png"]
        for row, file in enumerate(files):
            pixels = np.asarray(PIL.Image.open(file))
            assert pixels.shape == SIZE
            assert np.array_equal(pixels, result.masks.full(row) * 255)

    def test_cutout(self, result: Result, tmp_path: Path) -> None:
        for row, file in enumerate(exporters.save(result, tmp_path / "desk.png", format="cutout")):
            cutout = PIL.Image.open(file)
            assert cutout.mode == "RGBA"
            pixels = np.asarray(cutout)
            (x1, y1, x2, y2), bitmap = result.masks.boxes[row], result.masks.bitmaps[row]
            assert np.array_equal(pixels[..., 3], bitmap * 255)
            assert np.array_equal(
                pixels[..., :3][bitmap], result.image.pixels[y1:y2, x1:x2][bitmap]
            )
            assert not pixels[
                ~bitmap
            ].any()  # pixels outside the mask are not hidden under the alpha

    @pytest.mark.parametrize("format", ["json", "coco"])
    def test_rle(self, result: Result, tmp_path: Path, format: str) -> None:
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


class TestSave:
    def test_the_suffix_chooses_overlay_or_json(self, result: Result, tmp_path: Path) -> None:
        for name in ("a.png", "a.JPG", "a.jpeg"):
            assert exporters.save(result, tmp_path / name) == [tmp_path / name]
            assert PIL.Image.open(tmp_path / name).size == (53, 37)
        exporters.save(result, str(tmp_path / "a.json"))
        assert json.loads((tmp_path / "a.json").read_text("utf-8"))["size"] == [37, 53]

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
