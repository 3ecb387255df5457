"""Write results to files: one function a format and one line in `WRITERS`.

Masks leave pixel-exact, files appear whole or not at all.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import numpy as np
import PIL.Image
from pycocotools import mask as coco

from . import registry
from .drawing import overlay
from .errors import BadPrompt
from .types import Masks, Result

Writer: TypeAlias = Callable[[Result, Path], list[Path]]

_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_DEFAULTS = {**dict.fromkeys(_PICTURES, "overlay"), ".json": "json"}


def save(result: Result, path: str | Path, *, format: str | None = None) -> list[Path]:
    """Write a result and give the files written; none when a format of one file a row has no rows.

    format: a key of `WRITERS`; left out, ".json" is "json" and ".png" or ".jpg" is "overlay". Missing folders are made.
    Raises UnknownName, or BadPrompt when the path cannot be written.
    """
    path = Path(path)
    name = registry.choose(_DEFAULTS, path.suffix.lower(), "file suffix") if format is None else format
    return registry.choose(WRITERS, name, "format")(result, path)


def to_record(result: Result) -> dict[str, Any]:
    """Describe a result in plain JSON types: boxes xyxy half-open, masks as COCO's compressed RLE, sizes [H, W]."""
    columns = zip(result.texts, result.similarity, result.probability, result.quality, strict=True)
    rows = [
        {
            "text": text,
            "similarity": _digits(similarity),
            "probability": _digits(probability),
            "quality": _digits(quality),
            "box": result.masks.boxes[row].tolist(),
            "area": int(result.masks.areas[row]),
            "rle": encode_rle(result.masks, row),
        }
        for row, (text, similarity, probability, quality) in enumerate(columns)
    ]
    return {
        "image": result.image.source,
        "size": list(result.image.size),
        "asked": list(result.asked),
        "reasons": list(result.reasons),
        "threshold": _digits(result.threshold),
        "rows": rows,
    }


def encode_rle(masks: Masks, row: int) -> dict[str, Any]:
    """Give mask ``row`` as COCO's compressed run lengths of the whole image: {"size": [H, W], "counts": text}.

    Reads only the columns of the box: a small mask of a large photo costs what the mask costs.
    """
    height, width = masks.size
    x1, y1, x2, y2 = masks.boxes[row]
    columns = np.zeros((x2 - x1, height), bool)  # COCO counts down columns
    columns[:, y1:y2] = masks.bitmaps[row].T
    edges = np.flatnonzero(np.diff(columns.ravel(), prepend=False, append=False)) + int(x1) * height
    counts = np.diff(np.concatenate(([0], edges, [height * width])))
    if not counts[-1]:  # the mask holds the last pixel: COCO writes no run after it
        counts = counts[:-1]
    rle = coco.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def _write_overlay(result: Result, path: Path) -> list[Path]:
    kind = registry.choose(_PICTURES, path.suffix.lower(), "picture suffix")
    return [_write(path, _encode(overlay(result), kind))]


def _write_masks(result: Result, path: Path) -> list[Path]:
    """Write a grey PNG of the whole frame a row, 0 outside and 255 inside, to <stem>.<row>.png."""
    written = []
    for row in range(len(result)):
        grey = PIL.Image.fromarray(result.masks.full(row).astype(np.uint8) * np.uint8(255))
        written.append(_write(_numbered(path, row), _encode(grey, "PNG")))
    return written


def _write_cutouts(result: Result, path: Path) -> list[Path]:
    """Write an RGBA PNG of the box a row, transparent black outside the mask, to <stem>.<row>.png."""
    written = []
    for row, ((x1, y1, x2, y2), bitmap) in enumerate(zip(result.masks.boxes, result.masks.bitmaps, strict=True)):
        if bitmap.size:
            pixels = np.dstack((result.image.pixels[y1:y2, x1:x2], np.full(bitmap.shape, 255, np.uint8)))
            cutout = PIL.Image.fromarray(pixels * bitmap[..., None])
            written.append(_write(_numbered(path, row), _encode(cutout, "PNG")))
    return written


def _write_record(result: Result, path: Path) -> list[Path]:
    return [_write(path, _to_json(to_record(result)))]


def _write_coco(result: Result, path: Path) -> list[Path]:
    """Write a COCO dataset of this one image: a category each text asked, boxes as xywh, scores beside."""
    height, width = result.image.size
    names = list(dict.fromkeys((*result.asked, *result.texts)))
    annotations = []
    for row, (x1, y1, x2, y2) in enumerate(result.masks.boxes.tolist()):
        annotation = {
            "id": row + 1,
            "image_id": 1,
            "category_id": names.index(result.texts[row]) + 1,
            "segmentation": encode_rle(result.masks, row),
            "area": int(result.masks.areas[row]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "iscrowd": 0,
            "score": _digits(result.score[row]),
        }
        annotations.append(annotation)
    image = {"id": 1, "file_name": Path(result.image.source).name, "width": width, "height": height}
    categories = [{"id": index, "name": name} for index, name in enumerate(names, start=1)]
    return [_write(path, _to_json({"images": [image], "categories": categories, "annotations": annotations}))]


WRITERS: Mapping[str, Writer] = {
    "overlay": _write_overlay,
    "png": _write_masks,
    "cutout": _write_cutouts,
    "json": _write_record,
    "coco": _write_coco,
}


def _numbered(path: Path, row: int) -> Path:
    return path.with_name(f"{path.stem}.{row:02d}.png")


def _digits(value: Any) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)  # JSON has no NaN


def _to_json(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, indent=1).encode("utf-8", "replace")


def _encode(picture: PIL.Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    options = {"compress_level": 1} if kind == "PNG" else {"quality": 95}  # level 6 takes 3 times as long for 15 % less
    picture.save(file, kind, **options)
    return file.getvalue()


def _write(path: Path, data: bytes) -> Path:
    """Write bytes under a temporary name in the same folder, then rename: no reader ever meets half a file."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise BadPrompt(f"{path}: cannot be written, {error.strerror}") from None
    finally:
        with suppress(OSError):  # gone after the rename
            temporary.unlink()
    return path
