"""Results as records: plain JSON, COCO, run lengths. Masks are pixel-exact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from ..errors import BadIndex
from ..files import rle
from ..files.polygons import has_holes, trace
from ..types import Array, Masks, Result
from .files import to_json, write


def to_record(result: Result) -> dict[str, Any]:
    """Convert a result to plain JSON types.

    Boxes are xyxy half-open, masks COCO's compressed RLE, sizes [H, W]. nearest: for each text the
    highest probability of any region, which the threshold may have ruled out.
    """
    columns = zip(result.texts, result.similarity, result.probability, result.quality, strict=True)
    rows = [
        {
            "text": text,
            "similarity": digits(similarity),
            "probability": digits(probability),
            "quality": digits(quality),
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
        "nearest": [digits(near) for near in result.nearest],
        "resembles": [None if one is None else one._asdict() for one in result.resembles],
        "threshold": digits(result.threshold),
        "rows": rows,
    }


def encode_rle(masks: Masks, row: int) -> dict[str, Any]:
    """Return mask ``row`` as COCO's compressed RLE: {"size": [H, W], "counts": text}.

    Reads only the columns of the box, so that the cost depends on the mask, not on the image.
    """
    height, width = masks.size
    x1, y1, x2, y2 = masks.boxes[row]
    columns = np.zeros((x2 - x1, height), bool)  # COCO counts down columns
    columns[:, y1:y2] = masks.bitmaps[row].T
    edges = np.flatnonzero(np.diff(columns.ravel(), prepend=False, append=False)) + int(x1) * height
    counts = np.diff(np.concatenate(([0], edges, [height * width])))
    if not counts[-1]:  # the mask holds the last pixel: COCO writes no run after it
        counts = counts[:-1]
    code = coco.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def decode_rle(code: dict[str, Any]) -> Array:
    """Decode a mask of ``encode_rle``: bool (H, W). Raises BadIndex if it is damaged."""
    return decode_masks([code]).full(0)


def decode_masks(codes: Sequence[dict[str, Any]], size: tuple[int, int] | None = None) -> Masks:
    """Decode masks of ``encode_rle`` of one image. Raises BadIndex if one is damaged.

    size: (H, W), that of the first code if None.
    """
    try:
        height, width = codes[0]["size"] if size is None else size
        windows = [rle.window(code["counts"], (height, width)) for code in codes]
        return Masks.from_windows(windows, (height, width))
    except (LookupError, TypeError, ValueError) as error:
        raise BadIndex(
            f"a stored mask is damaged ({error!r}); delete the stored results and run this again"
        ) from None


def coco_annotation(row: dict[str, Any]) -> dict[str, Any]:
    """Convert a row of a record to a COCO annotation without ids."""
    x1, y1, x2, y2 = row["box"]
    score = row["quality"] if row["probability"] is None else row["probability"]
    return {
        "segmentation": row["rle"],
        "area": row["area"],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "iscrowd": 0,
        "score": score,
    }


def coco_polygons(code: dict[str, Any]) -> list[list[int]] | dict[str, Any]:
    """Return a mask as COCO polygons along pixel edges, or as RLE if it has holes."""
    mask = decode_rle(code)
    if not mask.any() or has_holes(mask):
        return code
    return [polygon.outer.ravel().tolist() for polygon in trace(mask)]


def write_record(result: Result, path: Path) -> list[Path]:
    """Write the JSON of ``to_record``."""
    return [write(path, to_json(to_record(result)))]


def write_coco(result: Result, path: Path) -> list[Path]:
    """Write a COCO dataset of this image: one category per text, boxes as xywh, with scores."""
    record = to_record(result)
    height, width = record["size"]
    names = list(dict.fromkeys((*result.asked, *result.texts)))
    annotations = [
        {"id": number, "image_id": 1, "category_id": names.index(row["text"]) + 1}
        | coco_annotation(row)
        for number, row in enumerate(record["rows"], start=1)
    ]
    image = {"id": 1, "file_name": Path(result.image.source).name, "width": width, "height": height}
    categories = [{"id": index, "name": name} for index, name in enumerate(names, start=1)]
    table = {"images": [image], "categories": categories, "annotations": annotations}
    return [write(path, to_json(table))]


def digits(value: Any) -> float | None:
    """Round to six digits; return None for NaN, which JSON cannot represent."""
    return None if math.isnan(value) else round(float(value), 6)
