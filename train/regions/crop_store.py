"""Store crops of one source in shards: concatenated JPEG and PNG files, labels and contexts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from segclip.errors import BadPrompt
from segclip.files import atomic
from segclip.types import Array
from segclip.weights.reading import reading

STORED = 192  # maximum side of a stored crop, px
CONTEXT = 1.4  # of a stored region; whole photos have 1
SHARD = 4096
# labels without a class; WRONG: a candidate that is not one of its photo's labelled objects
BACKGROUND, UNLABELLED, WRONG = -1, -2, -3


@dataclass(frozen=True)
class Class:
    """A class of crops.

    texts: every text that names it, its name first. colour: the word for its colour or "". synset:
    its WordNet number, where that is certain. group: its source.
    """

    texts: tuple[str, ...]
    colour: str = ""
    synset: int | None = None
    group: str = ""


def read_classes(store: Path) -> tuple[list[Class], dict[str, int]]:
    """Read the classes of a folder of crops, and the place of each group's first one.

    Raises BadPrompt for a folder without crops, WeightsCorrupt for a damaged table.
    """
    if not (store / "classes.json").exists():
        raise BadPrompt(
            f"{store} holds no crops; make them with: python -m train.region_crops {store}"
        )
    with reading(store, "crops"):
        table = json.loads((store / "classes.json").read_text("utf-8"))
        classes = [
            Class(tuple(row["texts"]), row["colour"], row["synset"], row["group"])
            for row in table["classes"]
        ]
        return classes, table["offsets"]


@dataclass(frozen=True, eq=False)
class Crop:
    """A stored crop.

    pixels: uint8 (S, S, 3). mask: uint8 (S, S). context: of its window. label: its class.
    """

    pixels: Array
    mask: Array
    label: int
    context: float = CONTEXT


class Shards:
    """Write shards NAME-NNN.npz: concatenated JPEG and PNG files, labels and contexts."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, self.count = folder, name, 0
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, crops: Iterable[Crop]) -> int:
        """Write all crops; return their number."""
        waiting: list[Crop] = []
        for crop in crops:
            waiting.append(crop)
            if len(waiting) == SHARD:
                self._flush(waiting)
                waiting = []
        if waiting:
            self._flush(waiting)
        return self.count

    def _flush(self, crops: list[Crop]) -> None:
        quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
        files = [cv2.imencode(".jpg", crop.pixels[..., ::-1], quality)[1].ravel() for crop in crops]
        files += [cv2.imencode(".png", crop.mask)[1].ravel() for crop in crops]
        with atomic.replacing(self.folder / f"{self.name}-{self.count // SHARD:03d}.npz") as target:
            np.savez(
                target,
                data=np.concatenate(files),
                ends=np.cumsum([len(file) for file in files]),
                labels=np.array([crop.label for crop in crops], np.int32),
                contexts=np.array([crop.context for crop in crops], np.float32),
            )
        self.count += len(crops)


class CropStore:
    """Read the stored crops of one source, in order."""

    def __init__(self, folder: Path, name: str) -> None:
        self.shards = [
            dict(np.load(path)) for path in sorted(folder.glob(f"{name}-[0-9][0-9][0-9].npz"))
        ]
        sizes = [len(shard["labels"]) for shard in self.shards]
        self.starts = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, row: int) -> Crop:
        number = int(np.searchsorted(self.starts, row, "right")) - 1
        shard, index = self.shards[number], row - int(self.starts[number])
        half = len(shard["labels"])

        def read(place: int, flag: int) -> Array:
            start = int(shard["ends"][place - 1]) if place else 0
            file: Array = shard["data"][start : int(shard["ends"][place])]
            return np.asarray(cv2.imdecode(file, flag))

        pixels = np.ascontiguousarray(read(index, cv2.IMREAD_COLOR)[..., ::-1])
        mask = read(half + index, cv2.IMREAD_GRAYSCALE)
        return Crop(pixels, mask, int(shard["labels"][index]), float(shard["contexts"][index]))
