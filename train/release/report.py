"""Measure the shipped weights and print the figures of the model card.

    python -m train.release.report --photos ../shared/coco-dev --caltech ../shared/caltech-101
    python -m train.release.report --calibrate weights/mini/clip
        # also stores the best threshold for the calibration scenes

Scenes: seeds from VALIDATION_SEED up, never trained on. Photos: the held-out fifth of coco-dev and
of caltech-101. The threshold is fitted on other seeds and on every second of coco-dev's photos; the
figures are those of the others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from segclip import images
from segclip.encoders.checkpoints import store
from segclip.evaluation.datasets import Sample, read_folder
from segclip.evaluation.text import Report, evaluate_text
from segclip.loading import load
from segclip.ranking.embedding import embed_texts, unit
from segclip.ranking.outcomes import fit_threshold
from segclip.scoring.crops import View, cut
from segclip.segmenter import Segmenter
from segclip.types import Masks

from ..engine import command, limits
from ..engine.options import BackgroundPhotos, ValidationCount
from ..regions.photo_lists import caltech_files
from ..scenes.compose import VALIDATION_SEED
from ..scenes.photos import HELD_OUT_EVERY, load_photos
from ..scenes.write import write_folder

CALIBRATION_SEED = 1_500_000


def scenes(count: int, first: int, photos: Path | None, folder: Path) -> list[Sample]:
    """Compose validation scenes and read them back."""
    write_folder(folder, range(first, first + count), load_photos(photos, held_out=True))
    return read_folder(folder)


def held_out_photos(folder: Path) -> list[Sample]:
    """Read the photos of a COCO-format folder that were never trained on."""
    return read_folder(folder)[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]


def caltech_accuracy(segmenter: Segmenter, folder: Path) -> tuple[float, float, int]:
    """Classify the held-out photos among all class names: top-1, top-5, number of photos."""
    files = caltech_files(folder, held_out=True)
    names = [
        path.name.replace("_", " ").lower() for path in sorted(folder.iterdir()) if path.is_dir()
    ]
    encoder = segmenter.encoder
    texts = embed_texts(encoder, names, encoder.serving.templates)
    crops = np.concatenate([_whole(path, encoder.image_size) for path, _ in files])
    order = np.argsort(-(unit(encoder.encode_images(crops)) @ texts.T), axis=1)
    hits = order == np.array([label for _, label in files])[:, None]
    return float(hits[:, 0].mean()), float(hits[:, :5].any(axis=1).mean()), len(files)


def _whole(path: Path, size: int) -> np.ndarray:
    image = images.load(path)
    whole = Masks.from_windows([(0, 0, np.ones(image.size, bool))], image.size)
    return cut(image, whole, View(1.1, "keep", 1.0), size)


def print_report(title: str, report: Report) -> None:
    """Print a report."""
    typer.echo(f"\n{title}")
    for name, value in report.table():
        typer.echo(f"  {name:48} {value}")


def measure(segmenter: Segmenter, samples: Sequence[Sample], title: str) -> Report:
    """Evaluate and print a report."""
    report = evaluate_text(segmenter, samples)
    print_report(title, report)
    return report


def main(
    proposer: str = "mini-fastsam",
    encoder: str = "mini-clip",
    photos: BackgroundPhotos = None,
    caltech: Annotated[Path | None, typer.Option(help="Folder tree of class folders.")] = None,
    count: ValidationCount = 300,
    calibrate: Annotated[
        Path | None, typer.Option(help="Encoder folder to store the fitted threshold in.")
    ] = None,
) -> None:
    """Print the figures of the model card."""
    limits.check({"--count": (count, limits.COUNT)})
    with tempfile.TemporaryDirectory() as folder:
        if calibrate:
            segmenter = load(proposer, encoder)
            drawn = scenes(200, CALIBRATION_SEED, photos, Path(folder, "calibration"))
            reports = [measure(segmenter, drawn, "200 calibration scenes")]
            if photos:
                reports.append(
                    measure(
                        segmenter, held_out_photos(photos)[::2], "half of coco-dev's held-out fifth"
                    )
                )
            threshold = fit_threshold([report.outcomes for report in reports])
            store(
                calibrate, replace(segmenter.encoder.serving, threshold=threshold, calibrated=True)
            )
        segmenter = load(proposer, encoder)
        samples = scenes(count, VALIDATION_SEED, photos, Path(folder, "scenes"))
        measure(segmenter, samples, f"{count} validation scenes")
    if photos:
        measure(
            segmenter,
            held_out_photos(photos)[1::2],
            "coco-dev, the other half of the held-out fifth",
        )
    if caltech:
        first, five, total = caltech_accuracy(segmenter, caltech)
        typer.echo(
            f"\ncaltech-101, {total} held-out photos, 100 names: top-1 {first:.3f}, top-5 "
            f"{five:.3f}"
        )


if __name__ == "__main__":
    command.run(main)
