"""Measure words of place and size, and "everything like this", on scenes that hold two or three of the same object.

    python -m train.places --photos ../shared/coco-dev --count 200
    python -m train.places --calibrate weights/mini/clip    # also stores the likeness that fits best

The object meant by "left NAME" or "biggest NAME" is told by the true masks. A word is asked only where it is plain
which one it means: centres GAP px apart, areas by a factor of LARGER. Likeness is the cosine of two objects' regions.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from segclip.datasets import Sample, read_folder
from segclip.loading import load
from segclip.pipeline import Segmenter
from segclip.positions import parse

from .photos import load_photos
from .report import store
from .scenes import VALIDATION_SEED, SceneConfig, write_folder

GAP, LARGER = 30, 1.3
RIGHT = 0.5  # IoU from which an answer is the object meant
FIRST_SEED = VALIDATION_SEED + 700_000


def questions(sample: Sample) -> Iterator[tuple[str, int]]:
    """Give each text with the row it means, for names that two or three objects have, all of them askable."""
    counts = Counter(sample.names)
    for name in (name for name, count in counts.items() if count in (2, 3)):
        rows = [row for row, other in enumerate(sample.names) if other == name]
        if not sample.askable[rows].all():
            continue
        centres = np.array([_centre(sample, row) for row in rows])
        areas = sample.masks.areas[rows].astype(float)
        for word, values, apart in (
            ("left", -centres[:, 0], GAP), ("right", centres[:, 0], GAP), ("top", -centres[:, 1], GAP),
            ("bottom", centres[:, 1], GAP), ("biggest", np.log(areas), np.log(LARGER)),
            ("smallest", -np.log(areas), np.log(LARGER)),
        ):  # fmt: skip
            first, second = np.sort(values)[::-1][:2]
            if first - second >= apart and parse(f"{word} {name}"):  # "left foot" is a thing
                yield f"{word} {name}", rows[int(values.argmax())]


def _centre(sample: Sample, row: int) -> tuple[float, float]:
    ys, xs = np.nonzero(sample.masks.full(row))
    return float(xs.mean()), float(ys.mean())


def measure(segmenter: Segmenter, samples: Sequence[Sample]) -> dict[str, list[bool]]:
    """Ask everything: for each word, which answers were right."""
    told: dict[str, list[bool]] = {}
    for sample in samples:
        asked = list(questions(sample))
        if not asked:
            continue
        result = segmenter(sample.path, [text for text, _ in asked])
        for text, meant in asked:
            rows = [row for row, other in enumerate(result.texts) if other == text]
            iou = result.masks[rows].iou(sample.masks[[meant]]).max(initial=0)
            told.setdefault(text.split()[0], []).append(bool(iou >= RIGHT))
    return told


def likenesses(segmenter: Segmenter, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Compare all objects that were found: cosines of pairs of one name, and of pairs of two names."""
    same: list[float] = []
    other: list[float] = []
    for sample in samples:
        regions = segmenter.regions(sample.path)
        overlap = regions.masks.iou(sample.masks)  # (N, objects)
        rows = [row for row in np.flatnonzero(sample.askable) if overlap[:, row].max(initial=0) >= RIGHT]
        seen = regions.embeddings[[int(overlap[:, row].argmax()) for row in rows]]
        cosine = seen @ seen.T
        for a, b in combinations(range(len(rows)), 2):
            alike = sample.names[rows[a]] == sample.names[rows[b]]
            (same if alike else other).append(float(cosine[a, b]))
    return np.array(same), np.array(other)


def best_likeness(same: np.ndarray, other: np.ndarray) -> float:
    """Give the least cosine at which most of both kinds are told apart."""
    levels = np.linspace(0, 1, 201)
    return float(max(levels, key=lambda level: np.mean(same >= level) + np.mean(other < level)))


def scenes(count: int, photos: Path | None, folder: Path) -> list[Sample]:
    """Compose scenes in which every third object repeats one that is there."""
    config = SceneConfig(objects=(3, 8), across=(40, 200), repeat_share=0.35)
    write_folder(folder, range(FIRST_SEED, FIRST_SEED + count), load_photos(photos, held_out=True), config=config)
    return read_folder(folder)


def main(
    photos: Annotated[Path | None, typer.Option(help="COCO-format folder of photos for backgrounds.")] = None,
    count: Annotated[int, typer.Option(help="Scenes.")] = 200,
    preset: str = "mini",
    calibrate: Annotated[Path | None, typer.Option(help="Encoder folder to store the fitted likeness in.")] = None,
) -> None:
    """Print how often each word picks the right one, and how well likeness tells the same from others."""
    segmenter = load(preset)
    with tempfile.TemporaryDirectory() as folder:
        samples = scenes(count, photos, Path(folder))
        told = measure(segmenter, samples)
        same, other = likenesses(segmenter, samples)
    for word, right in sorted(told.items()):
        typer.echo(f"{word:10} {np.mean(right):.3f} of {len(right)}")
    every = [answer for right in told.values() for answer in right]
    typer.echo(f"{'all':10} {np.mean(every):.3f} of {len(every)}")

    level = best_likeness(same, other)
    typer.echo(
        f"like this: at {level:.3f}, {np.mean(same >= level):.3f} of {len(same)} pairs of the same object are found"
    )
    typer.echo(f"           and {np.mean(other < level):.3f} of {len(other)} pairs of two objects are told apart")
    if calibrate:
        store(calibrate, replace(segmenter.encoder.serving, likeness=round(level, 3)))


if __name__ == "__main__":
    typer.run(main)
