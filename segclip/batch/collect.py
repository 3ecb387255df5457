"""Put single outcomes together: one COCO file, tables, a YOLO data set, the failures, a summary, a picture of a sample.

Everything is streamed from the journals in the order of the plan: memory does not grow with the run, and the bytes do
not depend on who did what when.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import numpy as np

from .. import exporters, images
from ..drawing import contact_sheet, overlay
from ..errors import BadImage
from ..exporters import records
from ..polygons import outlines
from ..types import Image, Masks, Proposals, Regions, Result
from .journal import STATES, Outcome
from .plan import Item

OBJECT = "object"  # the category of what a place, and no text, asked for
SAMPLE = 16  # pictures on the contact sheet
_PARQUET_ROWS = 5000
_INSET = 0.01  # px inside the pixels' edges, so that readers who round outlines to pixels stay inside


@dataclass(frozen=True, eq=False)
class Done:
    """Hold a run that is done: its pictures in order, their outcomes, where its files go."""

    items: Sequence[Item]
    find: Callable[[Item], Outcome | None]
    out: Path

    def outcome(self, item: Item) -> Outcome:
        """Give a picture's outcome."""
        found = self.find(item)
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
    path = done.out / ("coco-polygons.json" if polygons else "coco.json")
    categories = done.categories()
    with _replacing(path) as file:
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
    return [path]


def write_jsonl(done: Done) -> list[Path]:
    """Write a line a region: path, text, scores, box, RLE."""
    path = done.out / "regions.jsonl"
    with _replacing(path) as file:
        for _, item, _, row in done.rows():
            file.write(_line({"image": item.name} | row) + b"\n")
    return [path]


def write_parquet(done: Done) -> list[Path]:
    """Write the same as a Parquet table: the box as four columns, the RLE's counts and size as three."""
    import pyarrow
    import pyarrow.parquet

    kinds = [(name, pyarrow.string()) for name in ("image", "text")]
    kinds += [(name, pyarrow.float64()) for name in ("similarity", "probability", "quality")]
    kinds += [(name, pyarrow.int64()) for name in ("x1", "y1", "x2", "y2", "area", "height", "width")]
    schema = pyarrow.schema([*kinds, ("counts", pyarrow.string())])
    path = done.out / "regions.parquet"
    with _replacing(path) as file, pyarrow.parquet.ParquetWriter(file, schema) as table:
        for chunk in _chunks((_flat(item, row) for _, item, _, row in done.rows()), _PARQUET_ROWS):
            table.write_table(pyarrow.Table.from_pylist(chunk, schema=schema))
    return [path]


def write_yolo(done: Done) -> list[Path]:
    """Write a YOLO segmentation data set: data.yaml, labels/, and images/ with links to the pictures.

    A label holds outlines along the edges of pixels, without holes; parts of one mask are joined by a line there and
    back, as YOLO's own converters do.
    """
    root = done.out / "yolo"
    categories = {name: number for number, name in enumerate(done.categories())}
    names = _yolo_names(item.name for item in done.items)
    for _, item, found in done.outcomes():
        name = names[item.name]
        height, width = found.record["size"]
        lines = []
        for row in found.record["rows"]:
            points = _joined(outlines(records.decode_rle(row["rle"]), diagonal=True, inset=_INSET))
            if len(points):
                scaled = points / (width, height)
                kind = categories[row["text"] if row["text"] in item.ask.texts else OBJECT]
                lines.append(f"{kind} " + " ".join(f"{value:.7f}" for value in scaled.ravel()))
        label = root / "labels" / Path(name).with_suffix(".txt")
        with _replacing(label) as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
        _link(item.path, root / "images" / name)
    table = "path: .\ntrain: images\nval: images\nnames:\n"
    table += "".join(f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for name, number in categories.items())
    with _replacing(root / "data.yaml") as file:
        file.write(table.encode("utf-8", "replace"))
    return [root / "data.yaml"]


def write_failures(done: Done) -> list[Path]:
    """Write failures.jsonl, a line a picture that failed, with its reason; no file where none did."""
    path = done.out / "failures.jsonl"
    failed = [item for item in done.items if done.outcome(item).state == "failed"]
    if not failed:
        path.unlink(missing_ok=True)
        return []
    with _replacing(path) as file:
        for item in failed:
            found = done.outcome(item)
            told = {
                "image": item.name,
                "path": str(item.path),
                "reason": found.reason,
                "traceback": found.trace or None,
            }
            file.write(_line(told) + b"\n")
    return [path]


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
    path = done.out / "summary.json"
    with _replacing(path) as file:
        file.write(exporters.to_json(summary))
    return counts, path


def write_sheet(done: Done) -> list[Path]:
    """Draw a sample of answers for a person to look at, the same one however often it is drawn; matched ones first."""
    path = done.out / "contact_sheet.png"
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
        path.unlink(missing_ok=True)
        return []
    with _replacing(path) as file:
        file.write(exporters.encode(contact_sheet(pictures, captions), "PNG"))
    return [path]


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
    image = item.name.encode("utf-8", "replace").decode()
    return {"image": image, "height": height, "width": width, "counts": row["rle"]["counts"]} | columns


def _yolo_names(names: Iterable[str]) -> dict[str, str]:
    """Name each picture so that no two labels are one: pictures of one stem carry their ending in it."""
    listed = list(names)
    stems: dict[str, int] = {}
    for name in listed:
        stem = str(Path(name).with_suffix(""))
        stems[stem] = stems.get(stem, 0) + 1
    changed = {}
    for name in listed:
        path = Path(name)
        clash = stems[str(path.with_suffix(""))] > 1
        changed[name] = path.with_name(f"{path.stem}_{path.suffix[1:]}{path.suffix}").as_posix() if clash else name
    return changed


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Join outlines into one: each is entered where it is nearest to the one before, and left there again."""
    if not parts:
        return np.zeros((0, 2))
    whole = parts[0].astype(float)
    for part in parts[1:]:
        distance = ((whole[:, None] - part[None]) ** 2).sum(axis=2)
        a, b = np.unravel_index(distance.argmin(), distance.shape)
        turned = np.roll(part, -int(b), axis=0).astype(float)
        whole = np.concatenate([whole[: a + 1], turned, turned[:1], whole[a:]])
    return whole


def _link(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink() or place.exists():
        place.unlink()
    place.symlink_to(source.absolute())


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes its place once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    with partial.open("wb") as file:
        yield file
    os.replace(partial, path)


def _write_list(file: IO[bytes], values: Iterable[Any]) -> None:
    for number, value in enumerate(values):
        file.write((b",\n" if number else b"\n") + _line(value))


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


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
