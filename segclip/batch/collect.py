"""Put single outcomes together: one COCO file, tables, a YOLO data set, the failures, a summary, an image of a sample.

Everything is streamed from the journal in the order of the plan: memory does not grow with the run, and the bytes do
not depend on who did what when.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import PIL.Image

from .. import exporters, images
from ..drawing import contact_sheet, overlay
from ..errors import BadImage
from ..exporters import records
from ..polygons import outlines
from ..types import Image, Masks, Proposals, Regions, Result
from . import names
from .journal import STATES, Outcome
from .output import Output, is_below
from .plan import Item

OBJECT = "object"  # the category of what a place, and no text, asked for
SAMPLE = 16  # pictures on the contact sheet
_PARQUET_ROWS = 5000
# What YOLO's trainers read, by ending and by the first bytes; the rest is converted to PNG.
_YOLO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_YOLO_HEADS = (b"\xff\xd8", b"\x89PNG", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_BLOCK = 1 << 20  # distances between two outlines that are held at a time
# what a YAML file may not hold, or some readers take for the end of a line or of the byte order's mark
_NOT_YAML = re.compile("[^\t\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_HALVES = re.compile("[\ud800-\udfff]")  # what Python has for bytes of a name that are no UTF-8
_INSET = 0.01  # px inside the pixels' edges, so that readers who round outlines to pixels stay inside


@dataclass(frozen=True, eq=False)
class Done:
    """Hold a run that is done: its images in order, where their outcomes are and its files go, by what path."""

    items: Sequence[Item]
    output: Output
    out: Path

    def outcome(self, item: Item) -> Outcome:
        """Return an image's outcome."""
        found = self.output.ledger.get(item.name)
        if found is None:
            raise BadImage(f"{item.path}: it was changed or its masks were removed while they were put together")
        return found

    def outcomes(self) -> Iterator[tuple[int, Item, Outcome]]:
        """Give number (from 1), item and outcome of every picture that did not fail."""
        for number, item in enumerate(self.items, 1):
            found = self.outcome(item)
            if found.state != "failed":
                yield number, item, found

    def rows(self) -> Iterator[tuple[int, Item, str, dict[str, Any]]]:
        """Give every region: the picture's number and item, the category, the record's row."""
        for number, item, found in self.outcomes():
            for row in found.record["rows"]:
                yield number, item, row["text"] if row["text"] in item.ask.texts else OBJECT, row

    def categories(self) -> list[str]:
        """Give every text asked, in the order of the run, and OBJECT where places were asked about."""
        texts = dict.fromkeys(text for item in self.items for text in item.ask.texts)
        places = any(not item.ask.texts for item in self.items)
        return [*texts, *([OBJECT] if places and OBJECT not in texts else [])]


def write_coco(done: Done, *, polygons: bool = False) -> list[Path]:
    """Write one COCO file of the run: RLE, or polygons where a mask has no holes."""
    name = "coco-polygons.json" if polygons else "coco.json"
    categories = done.categories()
    with done.output.writing(name) as file:
        file.write(b'{"images": [')
        _write_list(
            file,
            (
                {"id": n, "file_name": item.name, "height": found.record["size"][0], "width": found.record["size"][1]}
                for n, item, found in done.outcomes()
            ),
        )
        file.write(b'],\n"annotations": [')
        _write_list(file, (_annotation(*row, categories, polygons=polygons) for row in _numbered(done.rows())))
        named = [{"id": number, "name": name} for number, name in enumerate(categories, 1)]
        file.write(b'],\n"categories": ' + _line(named) + b"}\n")
    return [done.out / name]


def write_jsonl(done: Done) -> list[Path]:
    """Write a line a region: path, text, scores, box, RLE."""
    with done.output.writing("regions.jsonl") as file:
        for _, item, _, row in done.rows():
            file.write(_row({"image": item.name} | row))
    return [done.out / "regions.jsonl"]


def write_parquet(done: Done) -> list[Path]:
    """Write the same as a Parquet table: the box as four columns, the RLE's counts and size as three."""
    import pyarrow
    import pyarrow.parquet

    kinds = [(name, pyarrow.string()) for name in ("image", "text")]
    kinds += [(name, pyarrow.float64()) for name in ("similarity", "probability", "quality")]
    kinds += [(name, pyarrow.int64()) for name in ("x1", "y1", "x2", "y2", "area", "height", "width")]
    schema = pyarrow.schema([*kinds, ("counts", pyarrow.string())])
    name = "regions.parquet"
    with done.output.writing(name) as file, pyarrow.parquet.ParquetWriter(file, schema) as table:
        for chunk in _chunks((_flat(item, row) for _, item, _, row in done.rows()), _PARQUET_ROWS):
            table.write_table(pyarrow.Table.from_pylist(chunk, schema=schema))
    return [done.out / name]


def write_yolo(done: Done) -> list[Path]:
    """Write a YOLO segmentation data set: data.yaml, labels/, and images/ with links to the images, or PNGs of them.

    A label holds outlines along the edges of pixels, without holes; parts of one mask are joined by a line there and
    back, as YOLO's own converters do.
    """
    categories = {name: number for number, name in enumerate(done.categories())}
    stems = _yolo_stems([item.name for item in done.items])
    for _, item, found in done.outcomes():
        stem = stems[item.name]
        height, width = found.record["size"]
        lines = []
        for row in found.record["rows"]:
            points = _joined(outlines(records.decode_rle(row["rle"]), diagonal=True, inset=_INSET))
            if len(points):
                scaled = points / (width, height)
                kind = categories[row["text"] if row["text"] in item.ask.texts else OBJECT]
                lines.append(f"{kind} " + " ".join(f"{value:.7f}" for value in scaled.ravel()))
        with done.output.writing(f"yolo/labels/{stem}.txt") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
        _show(done, item, f"yolo/images/{stem}")
    table = (
        "# There are no splits yet: train and val are the same images, and a score on val says nothing of new ones.\n"
    )
    table += "train: images\nval: images\nnames:\n"  # without a path, which would be that of the working folder
    table += "".join(f"  {number}: {_yaml(name)}\n" for name, number in categories.items())
    with done.output.writing("yolo/data.yaml") as file:
        file.write(table.encode())
    return [done.out / "yolo" / "data.yaml"]


def write_failures(done: Done) -> list[Path]:
    """Write failures.jsonl, a line an image that failed, with its reason; no file where none did.

    After a folder that cannot be read come the images that were in it when it could be.
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
                row = {"image": name, "path": str(path), "reason": f"{path}: its folder cannot be read"}
                file.write(_row(row | {"traceback": None}))
    return [done.out / "failures.jsonl"]


def write_summary(done: Done, settings: dict[str, Any]) -> tuple[dict[str, int], Path]:
    """Write summary.json: how many pictures came out how, how often each text was found, what was asked how."""
    counts = dict.fromkeys(STATES, 0)
    found: dict[str, dict[str, int]] = {name: {"images": 0, "regions": 0} for name in done.categories()}
    for item in done.items:
        counts[done.outcome(item).state] += 1
    for _, item, outcome in done.outcomes():
        told = [row["text"] if row["text"] in item.ask.texts else OBJECT for row in outcome.record["rows"]]
        for text in set(told):
            found[text]["images"] += 1
            found[text]["regions"] += told.count(text)
    summary = {"images": len(done.items), **counts, "texts": found, "settings": settings}
    with done.output.writing("summary.json") as file:
        file.write(exporters.to_json(summary))
    return counts, done.out / "summary.json"


def write_sheet(done: Done) -> list[Path]:
    """Draw a sample of answers for a person to look at, the same one however often it is drawn; matched ones first."""
    order = sorted(done.items, key=lambda item: sha256(os.fsencode(item.name)).digest())
    shown: list[Item] = []
    for state in ("matched", "empty"):
        shown += [item for item in order if done.outcome(item).state == state][: SAMPLE - len(shown)]
    pictures, captions = [], []
    for item in shown:
        outcome = done.outcome(item)
        try:
            pictures.append(overlay(_redrawn(item, outcome)))
        except BadImage:  # it has gone since
            continue
        captions.append(f"{item.name}: {len(outcome.record['rows'])} found")
    if not pictures:
        return []
    with done.output.writing("contact_sheet.png") as file:
        file.write(exporters.encode(contact_sheet(pictures, captions), "PNG"))
    return [done.out / "contact_sheet.png"]


def is_record(record: dict[str, Any], item: Item, max_pixels: int) -> bool:
    """Decide whether a record can be one of an image: a journal may have been damaged, or received from elsewhere."""
    try:
        height, width = record["size"]
        sized = type(height) is type(width) is int and min(height, width) > 0 and height * width <= max_pixels
        return sized and all(_is_row(row, item, height, width) for row in record["rows"]) and _is_texts(record["asked"])
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError):
        return False


def _is_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _is_row(row: dict[str, Any], item: Item, height: int, width: int) -> bool:
    x1, y1, x2, y2 = row["box"]
    scores = (row["similarity"], row["probability"], row["quality"])
    return (
        isinstance(row["text"], str)
        and (not item.ask.texts or row["text"] in item.ask.texts)
        and all(score is None or (isinstance(score, (int, float)) and np.isfinite(score)) for score in scores)
        and all(type(value) is int for value in (x1, y1, x2, y2, row["area"]))
        and 0 <= x1 <= x2 <= width
        and 0 <= y1 <= y2 <= height
        and row["rle"]["size"] == [height, width]
        and is_rle(row["rle"]["counts"], height * width)
    )


def is_rle(counts: str, total: int) -> bool:
    """Decide whether COCO's compressed run lengths fill an image: pycocotools writes beyond it where they do not."""
    data = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    if not len(data) or data.min() < 0 or data.max() > 63 or data[-1] & 32:
        return False
    ends = np.flatnonzero(data & 32 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    digits = ends - starts + 1
    if digits.max() > 8:  # of 5 bits
        return False
    shifts = 5 * (np.arange(len(data)) - np.repeat(starts, digits))
    values = np.add.reduceat((data & 31) << shifts, starts)
    values -= (data[ends] >> 4 & 1) << (5 * digits)  # negative ones
    values[1::2] = np.cumsum(values[1::2])  # each but the first three adds to the one before the last
    values[2::2] = np.cumsum(values[2::2])
    return bool(values.min() >= 0 and values.sum() == total)


def _redrawn(item: Item, outcome: Outcome) -> Result:
    """Make a Result of a record again, small enough for a sheet's tile."""
    rows, record = outcome.record["rows"], outcome.record
    image = images.load(item.path, max_pixels=10**12)
    step = max(1, max(image.size) // 640)
    small = Image(np.ascontiguousarray(image.pixels[::step, ::step]), item.name)
    dense = np.array([records.decode_rle(row["rle"])[::step, ::step] for row in rows], bool)
    masks = Masks.from_dense(dense.reshape(len(rows), *small.size), small.size)
    told = {key: np.array([np.nan if row[key] is None else row[key] for row in rows], np.float32)
            for key in ("similarity", "probability", "quality")}  # fmt: skip
    regions = Regions(small, Proposals(masks, told["quality"]), np.zeros((len(rows), 0), np.float32))
    texts = tuple(row["text"] for row in rows)
    return Result(regions, texts, told["similarity"], told["probability"], tuple(record["asked"]), 0.0)


def _annotation(
    number: int, row: tuple[int, Item, str, dict[str, Any]], categories: list[str], *, polygons: bool
) -> dict[str, Any]:
    image, _, category, told = row
    annotation: dict[str, Any] = {"id": number, "image_id": image, "category_id": categories.index(category) + 1}
    annotation |= records.coco_annotation(told)
    if polygons:
        annotation["segmentation"] = records.coco_polygons(told["rle"])
    return annotation


def _flat(item: Item, row: dict[str, Any]) -> dict[str, Any]:
    columns = {name: row[name] for name in ("text", "similarity", "probability", "quality", "area")}
    columns |= dict(zip(("x1", "y1", "x2", "y2"), row["box"], strict=True))
    height, width = row["rle"]["size"]
    return {"image": names.spelt(item.name), "height": height, "width": width, "counts": row["rle"]["counts"]} | columns


def _yolo_stems(listed: Sequence[str]) -> dict[str, str]:
    """Name each image, without its ending, so that no two labels are one: images of one stem carry their ending in it.

    No folder is called images: readers look for a label where the last folder of that name becomes labels.
    """
    wanted = {}
    for name in listed:
        path = PurePosixPath(name)
        folders = ("images_" if part == "images" else part for part in path.parts[:-1])
        wanted[name] = PurePosixPath(*folders, path.stem)
    count = Counter(names.folded(str(stem)) for stem in wanted.values())
    for name, stem in wanted.items():
        if count[names.folded(str(stem))] > 1:
            wanted[name] = stem.with_name(f"{stem.name}_{PurePosixPath(name).suffix[1:]}")
    return names.distinct({name: names.fitting(stem.as_posix()) for name, stem in wanted.items()})


def _show(done: Done, item: Item, stem: str) -> None:
    """Write a link to an image, or a PNG of what YOLO's trainers do not read: its first frame, upright."""
    suffix = item.path.suffix
    try:
        with item.path.open("rb") as file:
            readable = file.read(4).startswith(_YOLO_HEADS)
    except OSError as error:
        raise BadImage(f"{item.path}: cannot be opened any more, {error.strerror}; run again") from None
    if readable and suffix.lower() in _YOLO_SUFFIXES:
        done.output.link(f"{stem}{suffix}", item.path.absolute())
        return
    image = images.load(item.path, max_pixels=10**12)
    with done.output.writing(f"{stem}.png") as file:
        file.write(exporters.encode(PIL.Image.fromarray(image.pixels), "PNG"))


def _known_below(done: Done, item: Item) -> list[str]:
    below = (name for name in done.output.ledger.names() if is_below(name, {item.name}))
    return sorted(below, key=lambda name: name.split("/"))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Join outlines into one: each is entered where it is nearest to the one before, and left there again."""
    if not parts:
        return np.zeros((0, 2))
    whole = parts[0].astype(float)
    for part in parts[1:]:
        a, b = _nearest(whole, part)
        turned = np.roll(part, -b, axis=0).astype(float)
        whole = np.concatenate([whole[: a + 1], turned, turned[:1], whole[a:]])
    return whole


def _nearest(whole: np.ndarray, part: np.ndarray) -> tuple[int, int]:
    """Return the rows of the two points of two outlines that are nearest; the first of equals. Memory is bounded."""
    step = max(1, _BLOCK // len(part))
    best, found = np.inf, (0, 0)
    for start in range(0, len(whole), step):
        some = whole[start : start + step]
        distance = (some[:, None, 0] - part[None, :, 0]) ** 2 + (some[:, None, 1] - part[None, :, 1]) ** 2
        row, column = divmod(int(distance.argmin()), len(part))
        if distance[row, column] < best:
            best, found = distance[row, column], (start + row, column)
    return found


def _write_list(file: IO[bytes], values: Iterable[Any]) -> None:
    for number, value in enumerate(values):
        file.write((b",\n" if number else b"\n") + _line(value))


def _line(value: Any) -> bytes:
    return _json(value).encode("utf-8", "backslashreplace")  # a byte that is no UTF-8 as JSON's escape


def _row(value: Any) -> bytes:
    """Encode a line of a table. What is no character is ``names.spelt``: readers would refuse the whole table."""
    return _HALVES.sub(lambda half: f"\\\\u{ord(half[0]):04x}", _json(value)).encode() + b"\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _yaml(text: str) -> str:
    """Quote a text for YAML, on one line, of characters that every reader takes."""
    quoted = json.dumps(names.spelt(text), ensure_ascii=False)
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def _numbered(rows: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    return enumerate(rows, 1)


def _chunks(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


# formats of the run as a whole, made of the records when all pictures are done
WRITERS: dict[str, Callable[[Done], list[Path]]] = {
    "coco": write_coco,
    "coco-polygons": lambda done: write_coco(done, polygons=True),
    "yolo": write_yolo,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}
