"""What each outline and raster format holds, read back as its readers would."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import shapely

from segclip import exporters
from segclip.exporters import raster, records
from segclip.types import Array, Image, Masks, Proposals, Regions, Result

SIZE = (120, 160)


def ring_of(shape: tuple[int, int], outer: int, inner: int) -> Array:
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot(xs - 60, ys - 50)
    return (distance < outer) & (distance >= inner)


def scattered() -> Array:
    noise = cv2.GaussianBlur(np.random.default_rng(3).normal(size=SIZE), (0, 0), 7)
    return np.asarray(noise > 0.03)


def result_of(*masks: Array) -> Result:
    image = Image(np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8), "a b.jpg")
    count = len(masks)
    regions = Regions(
        image,
        Proposals(Masks.from_dense(np.array(masks), SIZE), np.full(count, 0.9)),
        np.zeros((count, 1), np.float32),
    )
    texts = tuple(f'<mug> & "{row}" 🦁' for row in range(count))
    scores = np.linspace(0.9, 0.5, count).astype(np.float32)
    return Result(regions, texts, scores, scores, texts, 0.5)


MASKS = {
    "a disc": ring_of(SIZE, 30, 0),
    "a ring with a hole": ring_of(SIZE, 40, 20),
    "scattered parts and holes": scattered(),
    "a strip one pixel wide": ring_of(SIZE, 200, 0) & (np.arange(120) == 7)[:, None],
}
each = pytest.mark.parametrize("name", MASKS)


def even_odd(rings: list[list[list[int]]]) -> Array:
    inside = np.zeros(SIZE, bool)
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    for ring in rings:
        for (ax, ay), (bx, by) in zip(ring, ring[1:] + ring[:1], strict=True):
            if ax == bx:
                inside ^= (xs < ax) & (ys > min(ay, by)) & (ys < max(ay, by))
    return inside


@each
def test_svg(name: str, tmp_path: Path) -> None:
    (file,) = exporters.save(result_of(MASKS[name]), tmp_path / "a.svg")
    root = ET.fromstring(file.read_text("utf-8"))
    (path,) = root.findall("{http://www.w3.org/2000/svg}path")
    assert path.get("data-text") == '<mug> & "0" 🦁'
    assert path.get("fill-rule") == "evenodd"
    rings = [[list(map(int, point.split())) for point in part.strip(" MZ").split("L")]
             for part in str(path.get("d")).split("Z") if part.strip()]  # fmt: skip
    assert np.array_equal(even_odd(rings), MASKS[name])


ODD = "a\0b\x08\x1b[31m\x7f\x85\ud800\ufffe\uffff ]]> <&>\"' 🦁"


def test_svg_of_any_text_is_well_formed(tmp_path: Path) -> None:
    """Fault 17.17d: characters that XML cannot hold made unreadable files.

    These are control characters and lone surrogates.
    """
    given = result_of(MASKS["a disc"])
    odd = dataclasses.replace(given, texts=(ODD,))
    (file,) = exporters.save(odd, tmp_path / "a.svg")
    (path,) = ET.fromstring(file.read_bytes()).findall("{http://www.w3.org/2000/svg}path")
    assert (
        path.get("data-text") == "a\ufffdb\ufffd\ufffd[31m\x7f\x85\ufffd\ufffd\ufffd ]]> <&>\"' 🦁"
    )
    assert path[0].text == path.get("data-text")


@pytest.mark.parametrize("seed", range(3))
def test_outlines_are_valid_where_pixels_touch_at_a_corner(seed: int, tmp_path: Path) -> None:
    """Fault 17.20, in the files: GeoJSON's geometry, LabelMe's polygons, COCO's."""
    rng = np.random.default_rng(seed)
    masks = [rng.random(SIZE) < share for share in (0.02, 0.1, 0.5)] + [
        ring_of(SIZE, 30, 0) & (rng.random(SIZE) < 0.9)
    ]
    given = result_of(*masks)
    (file,) = exporters.save(given, tmp_path / "a.geojson")
    for mask, feature in zip(masks, json.loads(file.read_bytes())["features"], strict=True):
        geometry = shapely.geometry.shape(feature["geometry"])
        assert geometry.is_valid
        assert geometry.area == mask.sum()
    (file,) = exporters.save(given, tmp_path / "a.json", format="labelme")
    polygons = [
        shape
        for shape in json.loads(file.read_bytes())["shapes"]
        if shape["shape_type"] == "polygon"
    ]
    assert polygons
    assert all(shapely.Polygon(shape["points"]).is_valid for shape in polygons)
    for row in range(len(given)):
        rings = records.coco_polygons(records.encode_rle(given.masks, row))
        for ring in rings if isinstance(rings, list) else ():
            assert shapely.Polygon(np.reshape(ring, (-1, 2))).is_valid


THIN = {
    "one pixel": [(5, 5)],
    "two pixels": [(5, 5), (5, 6)],
    "three round a corner": [(5, 5), (5, 6), (6, 5)],
    "a wire": [(10, x) for x in range(20, 120)],
    "an upright wire": [(y, 7) for y in range(120)],
    "a diagonal": [(y, y) for y in range(30)],
    "a staircase": [(y, y + step) for y in range(30) for step in (0, 1)],
    "the corners of the image": [(0, 0), (0, 159), (119, 0), (119, 159)],
}


@pytest.mark.parametrize("name", THIN)
def test_thin_things_survive_in_labelme(name: str, tmp_path: Path) -> None:
    """Fault 17.19: read as LabelMe reads, every pixel is there and no other."""
    mask = np.zeros(SIZE, bool)
    mask[tuple(zip(*THIN[name], strict=True))] = True
    (file,) = exporters.save(result_of(mask), tmp_path / "a.json", format="labelme")
    assert np.array_equal(read_labelme(json.loads(file.read_bytes())), mask)


@each
def test_geojson(name: str, tmp_path: Path) -> None:
    (file,) = exporters.save(result_of(MASKS[name]), tmp_path / "a.geojson")
    (feature,) = json.loads(file.read_text("utf-8"))["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"
    rings = [ring for polygon in feature["geometry"]["coordinates"] for ring in polygon]
    assert all(ring[0] == ring[-1] for ring in rings)
    assert np.array_equal(even_odd([ring[:-1] for ring in rings]), MASKS[name])
    assert feature["properties"]["score"] == pytest.approx(0.9)


def read_labelme(record: dict[str, Any]) -> Array:
    """Read like labelme.utils.shape_to_mask.

    Polygons are drawn by Pillow with their outline, masks pasted at their first point.
    """
    read = np.zeros(SIZE, bool)
    for shape in record["shapes"]:
        if shape["shape_type"] == "mask":
            (x1, y1), (x2, y2) = shape["points"]
            part = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(shape["mask"])))).astype(
                bool
            )
            read[y1 : y2 + 1, x1 : x2 + 1] |= part
        else:
            canvas = PIL.Image.new("L", SIZE[::-1], 0)
            PIL.ImageDraw.Draw(canvas).polygon(
                [tuple(p) for p in shape["points"]], outline=1, fill=1
            )
            read |= np.asarray(canvas).astype(bool)
    return read


@each
def test_labelme(name: str, tmp_path: Path) -> None:
    (file,) = exporters.save(result_of(MASKS[name]), tmp_path / "a.json", format="labelme")
    record = json.loads(file.read_text("utf-8"))
    read = read_labelme(record)
    assert np.array_equal(read, MASKS[name])
    assert record["imageData"] is None
    assert (record["imageHeight"], record["imageWidth"]) == SIZE


@each
def test_coco_polygons(name: str) -> None:
    from pycocotools import mask as coco

    rle = records.encode_rle(result_of(MASKS[name]).masks, 0)
    polygons = records.coco_polygons(rle)
    if isinstance(polygons, dict):
        assert polygons == rle
        assert "hole" in name
        return
    decoded = coco.decode(coco.merge(coco.frPyObjects(polygons, *SIZE))).astype(bool)
    assert np.array_equal(decoded, MASKS[name])


def test_npz_brings_every_mask_back(tmp_path: Path) -> None:
    given = result_of(*MASKS.values(), np.zeros(SIZE, bool))
    (file,) = exporters.save(given, tmp_path / "a.npz")
    masks, texts = raster.read_arrays(file)
    assert np.array_equal(masks.to_dense(), given.masks.to_dense())
    assert texts == given.texts
    again = exporters.save(given, tmp_path / "b.npz")[0]
    assert again.read_bytes() == file.read_bytes()


def test_a_label_map_has_the_better_row_on_top_and_a_legend(tmp_path: Path) -> None:
    given = result_of(MASKS["a disc"], MASKS["a ring with a hole"])
    image, legend = exporters.save(given, tmp_path / "a.labelmap.png", format="labelmap")
    labels = np.asarray(PIL.Image.open(image))
    assert labels.max() == 2
    assert np.array_equal(labels == 1, MASKS["a disc"])
    assert np.array_equal(labels == 2, MASKS["a ring with a hole"] & ~MASKS["a disc"])
    assert json.loads(legend.read_text("utf-8"))["2"]["text"] == given.texts[1]


def test_a_feathered_cutout_fades_and_is_empty_far_outside(tmp_path: Path) -> None:
    given = result_of(MASKS["a disc"])
    (file,) = raster.write_cutouts(given, tmp_path / "a.png", feather=6)
    pixels = np.asarray(PIL.Image.open(file))
    assert len(np.unique(pixels[..., 3])) > 20
    assert pixels[pixels.shape[0] // 2, pixels.shape[1] // 2, 3] == 255
    assert not pixels[pixels[..., 3] == 0].any()
