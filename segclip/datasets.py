"""Read labelled pictures: COCO-format folders, and the scenes that `train/scenes.py` writes in the same format."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .errors import BadPrompt
from .types import Masks

TABLES = ("scenes.json", "instances.json")
MIN_ACROSS = 32  # px; the longer side an object needs to be asked for, where the file doesn't say
ABSENT = 3  # absent names asked of each image, where the file doesn't name them


@dataclass(frozen=True, eq=False)
class Sample:
    """Hold one labelled picture.

    names: one for each of the N masks. askable: bool (N,), big and visible enough to be asked for. absent: names of
    things that are not in the picture. crowd: bool (N,), a group outlined as one, which counts neither for nor against.
    """

    path: Path
    masks: Masks
    names: tuple[str, ...]
    askable: np.ndarray
    absent: tuple[str, ...]
    crowd: np.ndarray


def read_folder(folder: Path) -> list[Sample]:
    """Read a folder of images/ and scenes.json or instances.json, pictures in the order of their file names.

    Raises BadPrompt when it holds neither table.
    """
    table_file = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table_file is None:
        raise BadPrompt(f"{folder} holds neither {' nor '.join(TABLES)}; give a folder of images/ and one of them")
    table = json.loads(table_file.read_text("utf-8"))
    names = {row["id"]: row["name"] for row in table["categories"]}
    things: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in table["annotations"]:
        things[row["image_id"]].append(row)
    images = sorted(table["images"], key=lambda row: str(row["file_name"]))
    return [_sample(folder, image, things[image["id"]], names) for image in images]


def _sample(folder: Path, image: dict[str, Any], things: Sequence[dict[str, Any]], names: dict[int, str]) -> Sample:
    size = image["height"], image["width"]
    dense = np.array([_decode(thing["segmentation"], size) for thing in things]).reshape(-1, *size)
    crowd = [bool(thing.get("iscrowd")) for thing in things]
    askable = [
        bool(thing.get("askable", _across(thing) >= MIN_ACROSS and not group))
        for thing, group in zip(things, crowd, strict=True)
    ]
    present = {names[thing["category_id"]] for thing in things}
    absent = image["absent"] if "absent" in image else _absent(image["id"], sorted(set(names.values()) - present))
    said = tuple(names[thing["category_id"]] for thing in things)
    return Sample(
        folder / "images" / image["file_name"],
        Masks.from_dense(dense, size),
        said,
        np.array(askable, bool),
        tuple(absent),
        np.array(crowd, bool),
    )


def _across(thing: dict[str, Any]) -> float:
    return max(thing["bbox"][2:])


def _decode(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Paint COCO polygons, a plain or a compressed run-length code: bool (H, W)."""
    if isinstance(segmentation, list):
        codes = coco_mask.frPyObjects([outline for outline in segmentation if len(outline) >= 6], *size)
        return coco_mask.decode(coco_mask.merge(codes)).astype(bool)
    code = segmentation if isinstance(segmentation["counts"], str) else coco_mask.frPyObjects(segmentation, *size)
    return coco_mask.decode(code).astype(bool)


def _absent(seed: int, names: Sequence[str]) -> list[str]:
    chosen = np.random.default_rng(seed).choice(len(names), min(ABSENT, len(names)), replace=False)
    return [names[index] for index in chosen]
