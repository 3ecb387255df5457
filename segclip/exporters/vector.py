"""Results as outlines: LabelMe, SVG, GeoJSON.

SVG and GeoJSON are exact; LabelMe has no polygons with holes, so such rows become mask shapes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import PIL.Image

from ..drawing import colour
from ..files.polygons import Polygon, has_holes, outlines, trace
from ..types import Array, Result
from .files import encode, to_json, write

# forbidden in XML 1.0, even escaped: control characters, lone surrogates, two noncharacters
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# px: LabelMe cuts coordinates to whole pixels, and those at the far edges must stay inside the mask
_INSET = 0.001


def write_labelme(result: Result, path: Path) -> list[Path]:
    """Write a LabelMe file: grouped polygons, one per part of a row; masks for rows with holes."""
    height, width = result.image.size
    shapes = [shape for row in range(len(result)) for shape in _shapes(result, row)]
    record: dict[str, Any] = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": result.image.source,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return [write(path, to_json(record))]


def _shapes(result: Result, row: int) -> list[dict[str, Any]]:
    x1, y1, x2, y2 = result.masks.boxes[row].tolist()
    bitmap = result.masks.bitmaps[row]
    common: dict[str, Any] = {
        "label": result.texts[row],
        "group_id": None,
        "description": f"{float(result.score[row]):.4f}",
        "flags": {},
    }
    if bitmap.size and has_holes(bitmap):
        image = base64.b64encode(encode(PIL.Image.fromarray(bitmap), "PNG")).decode()
        corners = [[x1, y1], [x2 - 1, y2 - 1]]  # LabelMe's boxes include their last pixel
        return [common | {"shape_type": "mask", "points": corners, "mask": image}]
    parts = [
        part.round(3).tolist() for part in outlines(bitmap, (x1, y1), diagonal=False, inset=_INSET)
    ]
    common["group_id"] = row if len(parts) > 1 else None
    return [common | {"shape_type": "polygon", "points": part, "mask": None} for part in parts]


def write_svg(result: Result, path: Path) -> list[Path]:
    """Write an SVG of the image's size: one even-odd path per row, with its text as the title."""
    height, width = result.image.size
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}">'
        )
    ]
    for row in range(len(result) - 1, -1, -1):  # the best on top
        drawn = " ".join(
            _ring_path(ring) for polygon in _polygons(result, row) for ring in _rings(polygon)
        )
        fill = "#{:02x}{:02x}{:02x}".format(*colour(row))
        score = f"{float(result.score[row]):.4f}"
        text = _NOT_XML.sub("\ufffd", result.texts[row])
        lines.append(
            f'<path fill="{fill}" fill-opacity="0.6" fill-rule="evenodd" data-row="{row}" '
            f'data-score="{score}" '
            f"data-text={quoteattr(text)} d={quoteattr(drawn)}><title>{escape(text)}</title></path>"
        )
    return [write(path, "\n".join([*lines, "</svg>\n"]).encode())]


def write_geojson(result: Result, path: Path) -> list[Path]:
    """Write a FeatureCollection of MultiPolygons in image pixels, y downwards, not geographic."""
    features = []
    for row in range(len(result)):
        coordinates = [
            [_closed(ring) for ring in _rings(polygon)] for polygon in _polygons(result, row)
        ]
        properties = {
            "text": result.texts[row],
            "score": round(float(result.score[row]), 6),
            "quality": round(float(result.quality[row]), 6),
        }
        geometry = {"type": "MultiPolygon", "coordinates": coordinates}
        features.append(
            {"type": "Feature", "id": row, "properties": properties, "geometry": geometry}
        )
    return [write(path, to_json({"type": "FeatureCollection", "features": features}))]


def _polygons(result: Result, row: int) -> list[Polygon]:
    x1, y1 = result.masks.boxes[row, :2].tolist()
    return trace(result.masks.bitmaps[row], (x1, y1))


def _rings(polygon: Polygon) -> Iterable[Array]:
    return (polygon.outer, *polygon.holes)


def _ring_path(ring: Array) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in ring.tolist()) + "Z"


def _closed(ring: Array) -> list[list[int]]:
    points: list[list[int]] = ring.tolist()
    return [*points, points[0]]
