"""Write the expressions of drawn scenes in RefCOCO's format: refs(drawn).p and instances.json.

    python -m train.scenes.refer scenes

FOLDER is one that `train.scenes.write` wrote; `segclip evaluate referring FOLDER` reads it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from segclip.errors import BadTable
from segclip.files import atomic, tables

from ..engine import command
from ..engine.files import claim

SCENES = "scenes.json"
REFS, INSTANCES = "refs(drawn).p", "instances.json"
SPLIT = "val"


def write_refs(folder: Path) -> tuple[Path, int]:
    """Write the expressions of a folder of scenes; return their file and their number.

    The pickle holds lists, dictionaries, texts and numbers only, as RefCOCO's do. Raises BadTable.
    """
    scenes = tables.read_json(folder / SCENES, "the scenes")
    if not all("phrases" in row and "askable" in row for row in scenes["annotations"]):
        raise BadTable(f"{folder / SCENES} has no phrases; write it with train.scenes.write")
    names = {row["id"]: row["name"] for row in scenes["categories"]}
    files = {row["id"]: row["file_name"] for row in scenes["images"]}
    things: dict[int, list[dict[str, Any]]] = {}
    for row in scenes["annotations"]:
        things.setdefault(row["image_id"], []).append(row)
    refs: list[dict[str, Any]] = []
    for image, rows in things.items():
        for row in rows:
            texts = list(dict.fromkeys(expressions(row, rows, names)))
            if texts:
                refs.append(_ref(row, files[image], texts, refs))
    atomic.write(folder / INSTANCES, json.dumps(scenes, separators=(",", ":")).encode())
    written = atomic.write(folder / REFS, pickle.dumps(refs, protocol=2))
    return written, sum(len(ref["sentences"]) for ref in refs)


def expressions(
    row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], names: Mapping[int, str]
) -> Iterator[str]:
    """Yield expressions that mean one object alone among those of its scene.

    The only one of its name has its name and the phrases of its table: by attribute and relation.
    Of several, those at an end have a place, and those at an extreme a size.
    """
    if not row["askable"]:
        return
    name = names[row["category_id"]]
    same = [other for other in rows if other["category_id"] == row["category_id"] and other["area"]]
    if len(same) == 1:
        yield name
        yield from row["phrases"]
        return
    if row["phrases"] and len(same) == 2:
        yield from (phrase for phrase in row["phrases"] if phrase.startswith("the "))
    centre = [other["bbox"][0] + other["bbox"][2] / 2 for other in same]
    own, area = row["bbox"][0] + row["bbox"][2] / 2, [other["area"] for other in same]
    places = {"left": own == min(centre), "right": own == max(centre)}
    sizes = {"biggest": row["area"] == max(area), "smallest": row["area"] == min(area)}
    yield from (f"{word} {name}" for word, fits in (places | sizes).items() if fits)


def _ref(
    row: Mapping[str, Any], file: str, texts: Sequence[str], before: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    first = before[-1]["sent_ids"][-1] + 1 if before else 0
    sentences = [
        {"raw": text, "sent": text.lower(), "sent_id": first + number, "tokens": text.split()}
        for number, text in enumerate(texts)
    ]
    return {
        "ref_id": len(before),
        "ann_id": row["id"],
        "category_id": row["category_id"],
        "image_id": row["image_id"],
        "file_name": file,
        "split": SPLIT,
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "sentences": sentences,
    }


def main(folder: Path) -> None:
    """Write the expressions of drawn scenes."""
    claim(folder)
    file, count = write_refs(folder)
    typer.echo(f"{count} expressions: {file}")


if __name__ == "__main__":
    command.run(main)
