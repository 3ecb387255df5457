"""Outlines as their readers see them: SVG, GeoJSON, LabelMe."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import shapely

from segclip import exporters
from segclip.exporters import records
from tests.results import (
    CANVAS,
    MASKS,
    ODD,
    THIN,
    each_mask,
    even_odd,
    read_labelme,
    result_of,
    ring_of,
)


@each_mask
def test_svg(name: str, tmp_path: Path) -> None:
    (file,) = exporters.save(result_of(MASKS[name]), tmp_path / "a.svg")
    root = ET.fromstring(file.read_text("utf-8"))
    (path,) = root.findall("{http://www.w3.org/2000/svg}path")
    assert path.get("data-text") == '<mug> & "0" 🦁'
    assert path.get("fill-rule") == "evenodd"
    rings = [[list(map(int, point.split())) for point in part.strip(" MZ").split("L")]
             for part in str(path.get("d")).split("Z") if part.strip()]  # fmt: skip
    assert np.array_equal(even_odd(rings), MASKS[name])


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
    masks = [rng.random(CANVAS) < share for share in (0.02, 0.1, 0.5)] + [
        ring_of(CANVAS, 30, 0) & (rng.random(CANVAS) < 0.9)
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


@pytest.mark.parametrize("name", THIN)
def test_thin_things_survive_in_labelme(name: str, tmp_path: Path) -> None:
    """Fault 17.19: read as LabelMe reads, every pixel is there and no other."""
    mask = np.zeros(CANVAS, bool)
    mask[tuple(zip(*THIN[name], strict=True))] = True
    (file,) = exporters.save(result_of(mask), tmp_path / "a.json", format="labelme")
    assert np.array_equal(read_labelme(json.loads(file.read_bytes())), mask)


@each_mask
def test_geojson(name: str, tmp_path: Path) -> None:
    (file,) = exporters.save(result_of(MASKS[name]), tmp_path / "a.geojson")
    (feature,) = json.loads(file.read_text("utf-8"))["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"
    rings = [ring for polygon in feature["geometry"]["coordinates"] for ring in polygon]
    assert all(ring[0] == ring[-1] for ring in rings)
    assert np.array_equal(even_odd([ring[:-1] for ring in rings]), MASKS[name])
    assert feature["properties"]["score"] == pytest.approx(0.9)


@each_mask
def test_labelme(name: str, tmp_path: Path) -> None:
    (file,) = exporters.save(result_of(MASKS[name]), tmp_path / "a.json", format="labelme")
    record = json.loads(file.read_text("utf-8"))
    read = read_labelme(record)
    assert np.array_equal(read, MASKS[name])
    assert record["imageData"] is None
    assert (record["imageHeight"], record["imageWidth"]) == CANVAS
