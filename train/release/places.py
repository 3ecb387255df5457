"""Measure words of place and size, and "everything like this", on scenes with repeated objects.

    python -m train.release.places --photos ../shared/coco-dev --count 200
    python -m train.release.places --calibrate weights/mini/clip
        # also stores the best likeness

The object meant by "left NAME", "biggest NAME" or "NAME above the OTHER" follows from the true
masks. Only unambiguous queries are used: centres at least GAP px apart, areas that differ by a
factor of LARGER. Likeness is the cosine of two objects' regions.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from segclip.encoders.checkpoints import store
from segclip.evaluation.datasets import Sample, read_folder
from segclip.loading import load
from segclip.ranking.positions import parse
from segclip.segmenter import Segmenter

from ..engine import command, limits
from ..engine.options import BackgroundPhotos, SceneCount
from ..scenes.compose import VALIDATION_SEED, SceneConfig
from ..scenes.photos import load_photos
from ..scenes.write import write_folder

GAP, LARGER = 30, 1.3
RIGHT = 0.5  # minimum IoU of an answer with the object meant
FIRST_SEED = VALIDATION_SEED + 700_000


@dataclass(frozen=True)
class PlaceQuery:
    """A query: its text, its word of place or size, its noun, and the row it means."""

    text: str
    word: str
    noun: str
    row: int


def queries_of(sample: Sample) -> Iterator[PlaceQuery]:
    """Yield queries for each name of two or three objects, all of them askable."""
    counts = Counter(sample.names)
    centres = {int(row): _centre(sample, int(row)) for row in np.flatnonzero(sample.askable)}
    for name in (name for name, count in counts.items() if count in (2, 3)):
        rows = [row for row, other in enumerate(sample.names) if other == name]
        if not sample.askable[rows].all():
            continue
        areas = sample.masks.areas[rows].astype(float)
        xs, ys = np.array([centres[row] for row in rows]).T
        for word, values, apart in (
            ("left", -xs, GAP), ("right", xs, GAP), ("top", -ys, GAP),
            ("bottom", ys, GAP), ("biggest", np.log(areas), np.log(LARGER)),
            ("smallest", -np.log(areas), np.log(LARGER)),
        ):  # fmt: skip
            first, second = np.sort(values)[::-1][:2]
            if first - second >= apart and parse(f"{word} {name}"):  # "left foot" is a thing
                yield PlaceQuery(f"{word} {name}", word, name, rows[int(values.argmax())])
        for anchor in centres:
            other = sample.names[anchor]
            if counts[other] > 1:
                continue
            x, y = xs - centres[anchor][0], ys - centres[anchor][1]
            for word, beyond in (("left of", -x), ("right of", x), ("above", -y), ("below", y)):
                if np.count_nonzero(beyond >= GAP) == 1 and (np.abs(beyond) >= GAP).all():
                    yield PlaceQuery(
                        f"{name} {word} the {other}", word, name, rows[int(beyond.argmax())]
                    )


def _centre(sample: Sample, row: int) -> tuple[float, float]:
    ys, xs = np.nonzero(sample.masks.full(row))
    return float(xs.mean()), float(ys.mean())


def measure(segmenter: Segmenter, samples: Sequence[Sample]) -> dict[str, list[tuple[bool, bool]]]:
    """Run all queries.

    Returns, for each word, whether each query selected only the object meant, and whether the best
    match of the noun alone was that object.
    """
    outcomes: dict[str, list[tuple[bool, bool]]] = {}
    for sample in samples:
        queries = list(queries_of(sample))
        if not queries:
            continue
        result = segmenter(
            sample.load(), list(dict.fromkeys(t for one in queries for t in (one.text, one.noun)))
        )
        for one in queries:
            meant = sample.masks[[one.row]]
            rows, first = (
                [row for row, t in enumerate(result.texts) if t == text]
                for text in (one.text, one.noun)
            )
            right, noun = (
                bool((result.masks[some].iou(meant) >= RIGHT).all()) for some in (rows, first[:1])
            )
            outcomes.setdefault(one.word, []).append(
                (right and len(rows) == 1, noun and bool(first))
            )
    return outcomes


def likenesses(segmenter: Segmenter, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Compare all objects that were found: cosines of pairs with one name, and with two names."""
    same: list[float] = []
    other: list[float] = []
    for sample in samples:
        regions = segmenter.regions(sample.load())
        overlap = regions.masks.iou(sample.masks)  # (N, objects)
        rows = [
            row for row in np.flatnonzero(sample.askable) if overlap[:, row].max(initial=0) >= RIGHT
        ]
        embedded = regions.embeddings[[int(overlap[:, row].argmax()) for row in rows]]
        cosine = embedded @ embedded.T
        for a, b in combinations(range(len(rows)), 2):
            alike = sample.names[rows[a]] == sample.names[rows[b]]
            (same if alike else other).append(float(cosine[a, b]))
    return np.array(same), np.array(other)


def best_likeness(same: np.ndarray, other: np.ndarray) -> float:
    """Return the cosine that best separates the two kinds of pairs."""
    levels = np.linspace(0, 1, 201)
    return float(max(levels, key=lambda level: np.mean(same >= level) + np.mean(other < level)))


def scenes(count: int, photos: Path | None, folder: Path) -> list[Sample]:
    """Compose scenes in which every third object repeats an earlier one."""
    config = SceneConfig(objects=(3, 8), across=(40, 200), repeat_share=0.35)
    write_folder(
        folder,
        range(FIRST_SEED, FIRST_SEED + count),
        load_photos(photos, held_out=True),
        config=config,
    )
    return read_folder(folder)


def main(
    photos: BackgroundPhotos = None,
    count: SceneCount = 200,
    preset: str = "mini",
    calibrate: Annotated[
        Path | None, typer.Option(help="Encoder folder to store the fitted likeness in.")
    ] = None,
) -> None:
    """Print how often each word selects the right object, and how well likeness works."""
    limits.check({"--count": (count, limits.COUNT)})
    segmenter = load(preset)
    with tempfile.TemporaryDirectory() as folder:
        samples = scenes(count, photos, Path(folder))
        outcomes = measure(segmenter, samples)
        same, other = likenesses(segmenter, samples)
    relations = {
        word: both
        for word, both in outcomes.items()
        if word in ("left of", "right of", "above", "below")
    }
    words = {word: both for word, both in outcomes.items() if word not in relations}
    for kind, some in (("all words", words), ("all relations", relations)):
        every = [answer for answers in some.values() for answer in answers]
        for word, answers in [*sorted(some.items()), (kind, every)]:
            right, noun = np.mean(answers, axis=0)
            typer.echo(f"{word:14} {right:.3f} of {len(answers)}, noun alone {noun:.3f}")

    level = best_likeness(same, other)
    typer.echo(
        f"like this: at {level:.3f}, {np.mean(same >= level):.3f} of {len(same)} pairs of the same "
        "object match"
    )
    typer.echo(
        f"           and {np.mean(other < level):.3f} of {len(other)} pairs of two objects "
        "are separated"
    )
    if calibrate:
        store(calibrate, replace(segmenter.encoder.serving, likeness=round(level, 3)))


if __name__ == "__main__":
    command.run(main)
