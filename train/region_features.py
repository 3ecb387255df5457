"""Store what the encoder's first layers make of the crops, cut as when served but varied.

    python -m train.region_features runs/crops --out runs/features --versions 2

The first layers of an ImageNet network need no training; what comes after them trains on these
features at a third of the cost. A crop without a name also gets a teacher's opinion:
EfficientNet-Lite0's own 1,000 classes.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import torch
import typer

from segclip.errors import BadPrompt
from segclip.scoring.crops import fill_outside
from segclip.types import Array

from .engine import command, limits
from .engine.options import OnlySources
from .engine.pretrained import load_classifier
from .regions.crop_store import Crop, CropStore
from .regions.model import SIZE

FROZEN = 5  # stages of the trunk that are not trained
CHANNELS = 112  # of what comes out of them, at a sixteenth of the crop's side
TEACHER_SIDE = 160  # px at least
LIKELIEST = 16  # of the teacher's classes that are kept
BATCH = 32
SERVED = 1.1  # context of serving's first view
SOURCES = ("imagenet", "photo", "drawn", "caltech", "pasted", "caption", "unlabelled", "proposed")
VARIED = ("imagenet", "photo", "caption")  # cut more than once
TAUGHT = ("imagenet", "caption", "unlabelled")  # sources with a teacher: the others have names


def vary(rng: np.random.Generator, crop: Crop, size: int) -> Array:
    """Vary a crop's context, place, light and the edge of its mask: uint8 (size, size, 3)."""
    side = crop.pixels.shape[0]
    whole = crop.context == 1.0
    low, high = (0.7, 1.0) if whole else (1.0 / crop.context, 1.0)
    share = rng.uniform(low, high) * np.exp(rng.normal(0, 0.06, 2))
    spans = np.clip(np.round(share * side), 8, side).astype(int)
    slack = side - spans
    middle = slack / 2 + rng.normal(0, 0.04, 2) * side
    top, left = np.clip(np.where(whole, rng.uniform(0, 1, 2) * slack, middle), 0, slack).astype(int)
    window = np.s_[top : top + spans[0], left : left + spans[1]]
    pixels, mask = crop.pixels[window], crop.mask[window]
    how = cv2.INTER_AREA if max(spans) > size else cv2.INTER_CUBIC
    pixels, mask = (
        cv2.resize(pixels, (size, size), interpolation=how),
        cv2.resize(mask, (size, size)),
    )
    if rng.random() < 0.5:
        pixels, mask = pixels[:, ::-1], mask[:, ::-1]
    light = rng.normal(1, 0.12) * rng.normal(1, 0.05, 3)
    pixels = np.clip(pixels * light + rng.normal(0, 8), 0, 255).astype(np.uint8)
    if rng.random() < 0.15:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.4, 1.2))
    fill = str(rng.choice(("blur", "keep", "mean"), p=(0.75, 0.2, 0.05)))
    return fill_outside(pixels, _imprecise(rng, mask), fill)


def _imprecise(rng: np.random.Generator, mask: Array) -> Array:
    inside = mask.astype(np.float32) / 255
    if rng.random() < 0.7:
        inside = cv2.GaussianBlur(inside, (0, 0), rng.uniform(0.8, 4.0))
        inside = (inside > rng.uniform(0.3, 0.7)).astype(np.float32)
    return inside


def as_served(crop: Crop, size: int, *, context: float = SERVED, fill: str = "blur") -> Array:
    """Cut a stored crop as serving does: uint8 (size, size, 3)."""
    side = crop.pixels.shape[0]
    span = side if crop.context == 1.0 else min(side, round(side * context / crop.context))
    edge = (side - span) // 2
    window = np.s_[edge : edge + span, edge : edge + span]
    how = cv2.INTER_AREA if span > size else cv2.INTER_CUBIC
    pixels = cv2.resize(crop.pixels[window], (size, size), interpolation=how)
    inside = cv2.resize(crop.mask[window], (size, size)).astype(np.float32) / 255
    return fill_outside(pixels, inside, fill)


def normalised(images: list[Array]) -> torch.Tensor:
    """Convert uint8 (B, S, S, 3) to the trunk's float32 (B, 3, S, S), channels last in memory."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return ((pixels - 127) / 128).contiguous(memory_format=torch.channels_last)


def first_layers(trunk: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Run the stages that are not trained: (B, CHANNELS, S / 16, S / 16)."""
    features = trunk.bn1(trunk.conv_stem(pixels))
    for stage in trunk.blocks[:FROZEN]:
        features = stage(features)
    return features


class FeatureTable:
    """Features of one source on disk, to be written where ``rows`` is given.

    size: side of the crops, px. features: float16 (R, 112, size / 16, size / 16). labels: (R,).
    likeliest, chances: (R, LIKELIEST), the teacher's, -1 without one.
    """

    def __init__(self, folder: Path, name: str, rows: int | None = None, size: int = SIZE) -> None:
        mode: Literal["r", "w+"] = "r" if rows is None else "w+"
        self.path = folder / f"{name}.json"
        if rows is None:
            stored = json.loads(self.path.read_text())
            rows, size = int(stored["rows"]), int(stored.get("size", SIZE))
        self.size = size
        shape, many = (rows, CHANNELS, size // 16, size // 16), (rows, LIKELIEST)
        self.features = np.memmap(folder / f"{name}.features", np.float16, mode, shape=shape)
        self.labels = np.memmap(folder / f"{name}.labels", np.int32, mode, shape=(rows,))
        self.likeliest = np.memmap(folder / f"{name}.likeliest", np.int16, mode, shape=many)
        self.chances = np.memmap(folder / f"{name}.chances", np.float16, mode, shape=many)

    def done(self, rows: int) -> None:
        """Record how many rows may be read, which are whole; more may come."""
        for part in (self.features, self.labels, self.likeliest, self.chances):
            part.flush()
        self.path.write_text(json.dumps({"rows": rows, "size": self.size}))


@torch.inference_mode()
def extract(
    store: CropStore,
    table: FeatureTable,
    classifier: Any,
    versions: int,
    *,
    served: bool,
    taught: bool,
) -> None:
    """Fill a table with every crop in each version, in a random order.

    Any first part of it is a fair sample, so a table of fewer rows is one of the whole.
    """
    rng, size = np.random.default_rng(0), table.size
    order = np.concatenate([rng.permutation(len(store)) for _ in range(versions)])
    order = order[: len(table.labels)]
    started = time.monotonic()
    for start in range(0, len(order), BATCH):
        rows = slice(start, min(start + BATCH, len(order)))
        crops = [store[int(row)] for row in order[rows]]
        cuts = [as_served(crop, size) if served else vary(rng, crop, size) for crop in crops]
        table.features[rows] = first_layers(classifier, normalised(cuts)).numpy()
        table.labels[rows] = [crop.label for crop in crops]
        table.likeliest[rows] = -1
        if taught:
            side = max(TEACHER_SIDE, size)
            plain = [as_served(crop, side, context=1.0, fill="keep") for crop in crops]
            chances, classes = torch.softmax(classifier(normalised(plain)), dim=1).topk(LIKELIEST)
            table.likeliest[rows], table.chances[rows] = classes.numpy(), chances.numpy()
        if start // BATCH % 20 == 19 or rows.stop == len(order):
            table.done(rows.stop)
            rate = rows.stop / (time.monotonic() - started)
            left = (len(order) - rows.stop) / rate / 60
            typer.echo(
                f"{rows.stop}/{len(order)}  {rate:.0f} crops/s  {left:.1f} min left", err=True
            )


def main(
    store: Path,
    out: Annotated[Path, typer.Option(help="Folder for the features.")],
    versions: Annotated[
        int, typer.Option(help="Times each crop of a photograph is cut, each time otherwise.")
    ] = 2,
    served: Annotated[
        bool, typer.Option("--served", help="Cut as serving does, once: to measure on.")
    ] = False,
    only: OnlySources = "",
    size: Annotated[int, typer.Option(help="Side of the crops, px: a multiple of 16.")] = SIZE,
    most: Annotated[int, typer.Option(help="Crops of a source at most.")] = 10**9,
) -> None:
    """Extract features of the crops of a store."""
    limits.check({"--versions": (versions, limits.FEW), "--size": (size, limits.SIDE)})
    limits.check({"--most": (most, limits.COUNT)})
    if size % 16:
        raise BadPrompt(f"--size takes a multiple of 16, got {size}")
    cv2.setNumThreads(1)
    out.mkdir(parents=True, exist_ok=True)
    classifier = load_classifier().to(memory_format=torch.channels_last)
    for name in only.split(",") if only else SOURCES:
        crops = CropStore(store, name)
        if not len(crops):
            continue
        many = versions if name in VARIED and not served else 1
        typer.echo(f"{name}: {len(crops)} crops, {many} times")
        table = FeatureTable(out, name, min(most, len(crops) * many), size)
        extract(crops, table, classifier, many, served=served, taught=name in TAUGHT and not served)


if __name__ == "__main__":
    command.run(main)
