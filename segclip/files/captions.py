"""Read image captions, for training and evaluation.

Formats: tables of image and caption, Flickr8k's token file, Flickr30k's results table, COCO
captions and Karpathy's splits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadTable
from . import lines, tables

COLUMNS = tables.Columns(
    known={
        "image": ("image", "image_name", "filepath", "file_name", "filename", "path", "img"),
        "caption": ("caption", "captions", "comment", "text", "title", "phrase", "sentence"),
        "split": ("split",),
    },
    needed=("image", "caption"),
    ignored=("comment_number", "id", "image_id", "caption_id", "url", "width", "height"),
    bare=("image", "caption"),
    rest="caption",
)
SPLITS = {
    "train": ("train", "training"),
    "restval": ("restval",),  # Karpathy: the rest of COCO's validation set, used for training
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
WHAT = "the captions file"
SUFFIXES = (".json", *tables.SUFFIXES)
_TOKEN = re.compile(r"(\S+\.\w+)#\d+\t(.*)")  # Flickr8k.token.txt: name.jpg#0<tab>caption


@dataclass(frozen=True)
class Caption:
    """A caption of an image. split: the image's split in the data set, a key of SPLITS or ""."""

    image: str
    text: str
    split: str = ""


def read(file: Path) -> Iterator[Caption]:
    """Yield the captions of a file in order; texts may be "".

    Raises BadTable, which names row and column.
    """
    if file.suffix.lower() == ".json":
        yield from from_json(file, tables.read_json(file, WHAT))
        return
    text = lines.read_text(file, WHAT)
    yield from (_tokens if _TOKEN.match(text) else _rows)(file, text)


def split_named(name: str) -> str:
    """Return the key of SPLITS for a split's name, "" for a blank name.

    Raises ValueError for an unknown name, and lists the known ones.
    """
    found = next((split for split, names in SPLITS.items() if name.strip().lower() in names), "")
    if name.strip() and not found:
        known = ", ".join(name for names in SPLITS.values() for name in names)
        raise ValueError(f"unknown split {name!r}; known splits: {known}")
    return found


def is_captions(table: Any) -> bool:
    """Return whether parsed JSON holds COCO or Karpathy captions rather than COCO instances."""
    if not isinstance(table, dict):
        return False
    first = _list(table, "annotations")[:1]
    return "annotations" not in table or any(
        isinstance(row, dict) and "caption" in row for row in first
    )


def from_json(file: Path, table: Any) -> Iterator[Caption]:
    """Yield the captions of parsed JSON in COCO's or Karpathy's format. Raises BadTable."""
    if not isinstance(table, dict) or not isinstance(table.get("images"), list):
        raise BadTable(f"{file} holds neither COCO nor Karpathy captions: it has no list of images")
    if "annotations" in table:
        yield from _coco(file, table)
        return
    for number, image in enumerate(table["images"], 1):
        row = _row(file, number, image)
        name = _text(row, "filename")
        if not name:
            row.refuse("no file name", "filename")
        if folder := _text(row, "filepath"):
            name = f"{folder}/{name}"
        split, sentences = _split(row), image.get("sentences")
        if not isinstance(sentences, list):
            row.refuse("expected a list of sentences", "sentences")
        for sentence in sentences:
            yield Caption(name, _text(_row(file, number, sentence), "raw"), split)


def _coco(file: Path, table: dict[str, Any]) -> Iterator[Caption]:
    names = {}
    for number, image in enumerate(table["images"], 1):
        row = _row(file, number, image)
        names[_identity(row, "id")] = _text(row, "file_name") or row.refuse(
            "no file name", "file_name"
        )
    for number, annotation in enumerate(_list(table, "annotations"), 1):
        row = _row(file, number, annotation)
        identity = _identity(row, "image_id")
        if identity not in names:
            row.refuse(f"no image has the id {identity!r}", "image_id")
        yield Caption(names[identity], _text(row, "caption"))


def _row(file: Path, number: int, values: Any) -> tables.Row:
    row = tables.Row(file, number, 0, values if isinstance(values, dict) else {})
    if not isinstance(values, dict):
        row.refuse(f"expected an object, got a {type(values).__name__}")
    return row


def _identity(row: tables.Row, column: str) -> int | str:
    value = row.values.get(column)
    if isinstance(value, bool) or not isinstance(value, int | str):
        row.refuse("expected a number or a text", column)
    return value


def _text(row: tables.Row, column: str) -> str:
    return " ".join(row.text(column).split())


def _list(table: dict[str, Any], key: str) -> list[Any]:
    found = table.get(key)
    return found if isinstance(found, list) else []


def _tokens(file: Path, text: str) -> Iterator[Caption]:
    for number, (line, content) in enumerate(lines.numbered(text), 1):
        match = _TOKEN.fullmatch(content)
        row = tables.Row(file, number, line, {"caption": match[2]} if match else {})
        if not match:
            row.refuse(f"expected NAME.jpg#0, a tab and a caption, got {content[:60]!r}")
        yield Caption(match[1], _text(row, "caption"))


def _rows(file: Path, content: str) -> Iterator[Caption]:
    for row in tables.parse(file, content, COLUMNS):
        image = row.text("image") or row.refuse("it names no image", "image")
        split, given = _split(row), row.values.get("caption", "")
        for text in (
            (row.texts("caption") or [""]) if isinstance(given, list) else [row.text("caption")]
        ):
            yield Caption(image, " ".join(text.split()), split)


def _split(row: tables.Row) -> str:
    try:
        return split_named(row.text("split"))
    except ValueError as error:
        row.refuse(str(error), "split")
