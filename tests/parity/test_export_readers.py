"""What the batch export writes, read by the programs it is written for."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import resvg_py
import supervision
import yaml
from pycocotools.coco import COCO

from segclip import loading
from segclip.batch import ExportOptions, export
from segclip.exporters import raster
from segclip.proposers import yolo
from segclip.types import Array, Masks
from tests import batch_script
from tests.fakes import COLOURS

pytestmark = pytest.mark.parity
TEXTS = ("a red blob", "a blue blob")
FORMATS = ("npz", "svg", "coco", "coco-polygons", "yolo")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export ragged blobs, some with holes and some in parts, of pictures whose names meet."""
    root = tmp_path_factory.mktemp("export")
    (root / "photos" / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "a.jpg", "sub/b.png")):
        pixels = np.full((180, 240, 3), 255, np.uint8)
        for colour, seed in (("red", number), ("blue", number + 10)):
            noise = cv2.GaussianBlur(
                np.random.default_rng(seed).normal(size=(180, 240)), (0, 0), 12
            )
            pixels[noise > 0.045] = COLOURS[colour]
        sample_image = PIL.Image.fromarray(pixels)
        sample_image.save(root / "photos" / name, quality=100, subsampling=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load", batch_script.fake_load)
        patch.setattr(loading, "fingerprint", batch_script.fake_fingerprint)
        export(root / "photos", root / "out", TEXTS, options=ExportOptions(formats=FORMATS))
    return root / "out"


def masks_of(out: Path, name: str) -> tuple[Masks, tuple[str, ...]]:
    return raster.read_arrays(out / "npz" / f"{name}.npz")


def names(out: Path) -> list[str]:
    return [
        path.relative_to(out / "npz").as_posix().removesuffix(".npz")
        for path in (out / "npz").rglob("*.npz")
    ]


def iou(a: Array, b: Array) -> float:
    return int(np.count_nonzero(a & b)) / max(int(np.count_nonzero(a | b)), 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("file", ["coco.json", "coco-polygons.json"])
def test_pycocotools(out: Path, file: str) -> None:
    dataset = COCO(str(out / file))
    assert len(dataset.imgs) == 3
    for image in dataset.dataset["images"]:
        masks, texts = masks_of(out, image["file_name"])
        annotations = dataset.loadAnns(dataset.getAnnIds(imgIds=image["id"]))
        assert [dataset.cats[a["category_id"]]["name"] for a in annotations] == list(texts)
        for row, annotation in enumerate(annotations):
            assert np.array_equal(dataset.annToMask(annotation).astype(bool), masks.full(row))


def test_supervision(out: Path) -> None:
    dataset = supervision.DetectionDataset.from_coco(
        str(out.parent / "photos"), str(out / "coco.json"), force_masks=True
    )
    assert dataset.classes == list(TEXTS)
    detections: Any
    for path, _, detections in dataset:
        masks, texts = masks_of(out, Path(path).relative_to(out.parent / "photos").as_posix())
        assert [dataset.classes[number] for number in detections.class_id] == list(texts)
        for row, mask in enumerate(detections.mask):
            assert iou(mask, masks.full(row)) == 1


def test_ultralytics_reads_the_yolo_data_set(out: Path) -> None:
    """As its trainer does: the label file to polygons, the polygons filled at the picture's
    size.
    """
    with yolo.quiet():
        from ultralytics.data.dataset import YOLODataset
        from ultralytics.data.utils import polygon2mask

        table: dict[str, Any] = yaml.safe_load((out / "yolo" / "data.yaml").read_text("utf-8"))
        assert table["names"] == dict(enumerate(TEXTS))
        table |= {"channels": 3}
        dataset = YOLODataset(
            str(out / "yolo" / "images"), data=table, task="segment", augment=False, cache=False
        )
    assert len(dataset.labels) == 3
    compared = 0
    for label in dataset.labels:
        link = Path(label["im_file"])
        name = link.resolve().relative_to(out.parent / "photos").as_posix()
        masks, texts = masks_of(out, name)
        assert [TEXTS[int(number)] for number in label["cls"][:, 0]] == list(texts)
        for row, segment in enumerate(label["segments"]):
            filled = polygon2mask(masks.size, [(segment * masks.size[::-1]).ravel()])
            whole = masks.full(row)
            # YOLO's outlines have no holes
            contours, _ = cv2.findContours(
                whole.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            without = np.zeros(whole.shape, np.uint8)
            cv2.drawContours(without, contours, -1, 1, -1)
            if whole.sum() > 400:
                assert iou(filled.astype(bool), without.astype(bool)) >= 0.98
                compared += 1
    assert compared >= 4


def test_fault_17_19_ultralytics_finds_the_images_from_anywhere(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the table's own folder, whatever the working folder holds."""
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    with yolo.quiet():
        from ultralytics.data.utils import check_det_dataset, img2label_paths

        table = check_det_dataset(str(out / "yolo" / "data.yaml"), autodownload=False)
        images = [str(path) for path in (out / "yolo" / "images").rglob("*.*")]
        labels = img2label_paths(images)
    assert Path(table["train"]).resolve() == (out / "yolo" / "images").resolve()
    assert len(images) == 3
    assert all(Path(label).is_file() for label in labels)


def test_a_renderer_draws_the_svg(out: Path) -> None:
    compared = 0
    for name in names(out):
        masks, texts = masks_of(out, name)
        svg = (out / "svg" / f"{name}.svg").read_text("utf-8")
        for row in range(len(texts)):
            lines = [
                line
                for line in svg.splitlines()
                if not line.startswith("<path") or f'data-row="{row}"' in line
            ]
            drawn = resvg_py.svg_to_bytes(
                svg_string="\n".join(lines).replace('fill-opacity="0.6"', "")
            )
            alpha = np.asarray(PIL.Image.open(io.BytesIO(bytes(drawn))))[..., 3]
            assert np.array_equal(alpha > 127, masks.full(row))
            compared += 1
    assert compared >= 6
