"""Write the files of a whole run: COCO, tables, a YOLO data set, failures, summary, contact sheet.

Everything is streamed from the journal in the order of the plan: memory does not grow with the run,
and the bytes do not depend on which process did what when.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from .. import exporters, images
from ..drawing import contact_sheet, overlay, shrink
from ..errors import BadImage
from ..exporters import records
from ..files import rle
from ..files.listing import by_folder
from ..types import Proposals, Regions, Result
from . import names, yolo
from .done import Done, category
from .journal import STATES, Outcome
from .output import is_below
from .plan import Item

SAMPLE = 16  # images on the contact sheet
_PARQUET_ROWS = 5000
_HALVES = re.compile("[\ud800-\udfff]")  # Python's surrogates for non-UTF-8 bytes of a name


def write_coco(done: Done, *, polygons: bool = False) -> list[Path]:
    """Write one COCO file of the run: RLE, or polygons where a mask has no holes."""
    name = "coco-polygons.json" if polygons else "coco.json"
    categories = done.categories()
    with done.output.writing(name) as file:
        file.write(b'{"images": [')
        _write_list(
            file,
            (
                {
                    "id": n,
                    "file_name": item.name,
                    "height": found.record["size"][0],
                    "width": found.record["size"][1],
                }
                for n, item, found in done.outcomes()
            ),
        )
        file.write(b'],\n"annotations": [')
        _write_list(
            file,
            (
                _annotation(number, row, categories, polygons=polygons)
                for number, row in enumerate(done.rows(), 1)
            ),
        )
        named = [{"id": number, "name": name} for number, name in enumerate(categories, 1)]
        file.write(b'],\n"categories": ' + _line(named) + b"}\n")
    return [done.out / name]


def write_jsonl(done: Done) -> list[Path]:
    """Write one line per region: path, text, scores, box, RLE."""
    with done.output.writing("regions.jsonl") as file:
        for _, item, _, row in done.rows():
            file.write(_row({"image": item.name} | row))
    return [done.out / "regions.jsonl"]


def write_parquet(done: Done) -> list[Path]:
    """Write the regions as Parquet: the box as four columns, the RLE's counts and size as three."""
    import pyarrow
    import pyarrow.parquet

    kinds = [(name, pyarrow.string()) for name in ("image", "text")]
    kinds += [(name, pyarrow.float64()) for name in ("similarity", "probability", "quality")]
    kinds += [
        (name, pyarrow.int64()) for name in ("x1", "y1", "x2", "y2", "area", "height", "width")
    ]
    schema = pyarrow.schema([*kinds, ("counts", pyarrow.string())])
    name = "regions.parquet"
    with done.output.writing(name) as file, pyarrow.parquet.ParquetWriter(file, schema) as table:
        rows = (_flat(item, row) for _, item, _, row in done.rows())
        while chunk := list(islice(rows, _PARQUET_ROWS)):
            table.write_table(pyarrow.Table.from_pylist(chunk, schema=schema))
    return [done.out / name]


def write_failures(done: Done) -> list[Path]:
    """Write failures.jsonl, one line per failed image with its reason; no file if none failed.

    An unreadable folder is followed by the images known from when it was readable.
    """
    failed = [item for item in done.items if done.outcome(item).state == "failed"]
    if not failed:
        return []
    with done.output.writing("failures.jsonl") as file:
        for item in failed:
            found = done.outcome(item)
            row = {"image": item.name, "path": str(item.path), "reason": found.why(item.path)}
            file.write(_row(row | {"traceback": found.trace or None}))
            for name in _known_below(done, item) if item.folder else ():
                path = item.path / PurePosixPath(name).relative_to(item.name)
                row = {
                    "image": name,
                    "path": str(path),
                    "reason": f"{path}: its folder cannot be read",
                }
                file.write(_row(row | {"traceback": None}))
    return [done.out / "failures.jsonl"]


def write_summary(done: Done, settings: dict[str, Any]) -> tuple[dict[str, int], Path]:
    """Write summary.json: images by state, how often each text was found, and the settings."""
    counts = dict.fromkeys(STATES, 0)
    found: dict[str, dict[str, int]] = {
        name: {"images": 0, "regions": 0} for name in done.categories()
    }
    for item in done.items:
        counts[done.outcome(item).state] += 1
    for _, item, outcome in done.outcomes():
        texts = [category(row, item) for row in outcome.record["rows"]]
        for text in set(texts):
            found[text]["images"] += 1
            found[text]["regions"] += texts.count(text)
    summary = {"images": len(done.items), **counts, "texts": found, "settings": settings}
    with done.output.writing("summary.json") as file:
        file.write(exporters.to_json(summary))
    return counts, done.out / "summary.json"


def write_sheet(done: Done) -> list[Path]:
    """Draw a contact sheet of a reproducible sample of the results, matched images first."""
    order = sorted(done.items, key=lambda item: sha256(os.fsencode(item.name)).digest())
    sample: list[Item] = []
    for state in ("matched", "empty"):
        sample += [item for item in order if done.outcome(item).state == state][
            : SAMPLE - len(sample)
        ]
    tiles, captions = [], []
    for item in sample:
        outcome = done.outcome(item)
        try:
            tiles.append(overlay(_redrawn(item, outcome)))
        except BadImage:  # deleted or changed since
            continue
        captions.append(f"{item.name}: {len(outcome.record['rows'])} found")
    if not tiles:
        return []
    with done.output.writing("contact_sheet.png") as file:
        file.write(exporters.encode(contact_sheet(tiles, captions), "PNG"))
    return [done.out / "contact_sheet.png"]


def is_record(record: dict[str, Any], item: Item, max_pixels: int) -> bool:
    """Return whether a record is valid for an image: a journal may be damaged or untrusted."""
    try:
        height, width = record["size"]
        return (
            type(height) is type(width) is int
            and min(height, width) > 0
            and height * width <= max_pixels
            and all(_is_row(row, item, height, width) for row in record["rows"])
            and isinstance(record["asked"], list)
            and all(isinstance(text, str) for text in record["asked"])
        )
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError):
        return False


def _is_row(row: dict[str, Any], item: Item, height: int, width: int) -> bool:
    x1, y1, x2, y2 = row["box"]
    scores = (row["similarity"], row["probability"], row["quality"])
    return (
        isinstance(row["text"], str)
        and (not item.ask.texts or row["text"] in item.ask.texts)
        and all(
            score is None or (isinstance(score, (int, float)) and np.isfinite(score))
            for score in scores
        )
        and all(type(value) is int for value in (x1, y1, x2, y2, row["area"]))
        and 0 <= x1 <= x2 <= width
        and 0 <= y1 <= y2 <= height
        and row["rle"]["size"] == [height, width]
        and rle.is_code(row["rle"]["counts"], (height, width))
    )


def _redrawn(item: Item, outcome: Outcome) -> Result:
    """Rebuild a Result from a record, small enough for a tile of the contact sheet."""
    rows, record = outcome.record["rows"], outcome.record
    image = images.load(item.path, max_pixels=10**12)
    if list(image.size) != record["size"]:
        raise BadImage(f"{item.name}: it has changed since it was exported")
    masks = records.decode_masks([row["rle"] for row in rows], image.size)
    small, masks = shrink(replace(image, source=item.name), masks, 640)
    scores = {key: np.array([np.nan if row[key] is None else row[key] for row in rows], np.float32)
            for key in ("similarity", "probability", "quality")}  # fmt: skip
    regions = Regions.bare(small, Proposals(masks, scores["quality"]))
    texts = tuple(row["text"] for row in rows)
    return Result(
        regions, texts, scores["similarity"], scores["probability"], tuple(record["asked"]), 0.0
    )


def _annotation(
    number: int,
    row: tuple[int, Item, str, dict[str, Any]],
    categories: list[str],
    *,
    polygons: bool,
) -> dict[str, Any]:
    image, _, category, region = row
    annotation: dict[str, Any] = {
        "id": number,
        "image_id": image,
        "category_id": categories.index(category) + 1,
    }
    annotation |= records.coco_annotation(region)
    if polygons:
        annotation["segmentation"] = records.coco_polygons(region["rle"])
    return annotation


def _flat(item: Item, row: dict[str, Any]) -> dict[str, Any]:
    columns = {name: row[name] for name in ("text", "similarity", "probability", "quality", "area")}
    columns |= dict(zip(("x1", "y1", "x2", "y2"), row["box"], strict=True))
    height, width = row["rle"]["size"]
    return {
        "image": names.spelt(item.name),
        "height": height,
        "width": width,
        "counts": row["rle"]["counts"],
    } | columns


def _known_below(done: Done, item: Item) -> list[str]:
    below = (name for name in done.output.ledger.names() if is_below(name, {item.name}))
    return sorted(below, key=by_folder)


def _write_list(file: IO[bytes], values: Iterable[Any]) -> None:
    for number, value in enumerate(values):
        file.write((b",\n" if number else b"\n") + _line(value))


def _line(value: Any) -> bytes:
    return _json(value).encode("utf-8", "backslashreplace")  # bytes outside UTF-8 as JSON escapes


def _row(value: Any) -> bytes:
    """Encode a line of a table; surrogates, which readers reject, as ``names.spelt`` does."""
    return _HALVES.sub(lambda half: f"\\\\u{ord(half[0]):04x}", _json(value)).encode() + b"\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# formats of the run as a whole, written from the records when all images are done
WRITERS: dict[str, Callable[[Done], list[Path]]] = {
    "coco": write_coco,
    "coco-polygons": lambda done: write_coco(done, polygons=True),
    "yolo": yolo.write,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}
