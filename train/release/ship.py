"""Stamp the shipped weights and store their answers on the samples, for tests/golden.

Run it once after new weights.

python -m train.release.ship --photos ../shared/coco-dev
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import PIL.Image
import typer

from segclip.drawing import contact_sheet, overlay
from segclip.evaluation import datasets
from segclip.evaluation.clicks import evaluate_clicks
from segclip.evaluation.text import evaluate_text
from segclip.files import atomic, coco
from segclip.loading import load, load_proposer
from segclip.ranking.selection import Selection
from segclip.segmenter import Segmenter
from segclip.weights import describe

from ..engine import command
from ..engine.options import BackgroundPhotos
from ..scenes.photos import FREE_LICENCES, HELD_OUT_EVERY
from .samples import SAMPLES, DemoSample

MARGIN = 0.02  # other processors round differently
DEMO = (("coffee.jpg", "a spoon"), ("desk.png", "red apple"), ("coffee.jpg", "a dog"))
SHIPPED = {"mini-fastsam": "mini/proposer", "mini-clip": "mini/clip", "mini-sam": "mini/sam"}
FIGURES = ("recall", "right", "found", "silent", "mean_iou")
STEP, CLICKED = 4, 12  # every fourth labelled scene is queried, the first 12 are clicked on
DRAWN, LOT = 12, 2026  # photos in the model card's image; the seed they are drawn with


def stamp(folder: Path) -> None:
    """Write size and hash of the shipped weights into FOLDER/manifest.json."""
    path = folder / "manifest.json"
    table = json.loads(path.read_text("utf-8"))
    for entry in table["entries"]:
        if entry["name"] in SHIPPED:
            weights = describe(folder / SHIPPED[entry["name"]])
            entry.update(bytes=weights.bytes, sha256=weights.sha256)
    atomic.write(path, (json.dumps(table, indent=2, ensure_ascii=False) + "\n").encode())


def clicked(scenes: Path) -> dict[str, float]:
    """Return the mean IoU of mini-sam after one and three clicks, and for boxes.

    Every object of the first CLICKED scenes is prompted.
    """
    report = evaluate_clicks(
        load_proposer("mini-sam"), datasets.read_folder(scenes)[:CLICKED], (1, 3)
    )
    figures = {f"clicks {count}": iou for count, iou in report.clicks.items()} | {
        "box": report.boxes
    }
    return {name: float(iou.mean()) for name, iou in figures.items()}


def answer(segmenter: Segmenter, sample: DemoSample, folder: Path) -> dict[str, object]:
    """Answer a sample's texts."""
    result = segmenter(folder / sample.name, sample.texts)
    columns = zip(
        result.texts, result.probability.tolist(), result.masks.boxes.tolist(), strict=True
    )
    rows = [{"text": text, "probability": round(p, 4), "box": box} for text, p, box in columns]
    return {"image": sample.name, "texts": sample.texts, "rows": rows}


def demo(segmenter: Segmenter, samples: Path) -> PIL.Image.Image:
    """Draw the README's image: a text on a photo, one on a drawing, and one that finds nothing."""
    answers = [overlay(segmenter(samples / name, text)) for name, text in DEMO]
    return contact_sheet(answers, [f'"{text}"' for _, text in DEMO], columns=len(DEMO))


def answers_on_photos(segmenter: Segmenter, folder: Path) -> PIL.Image.Image:
    """Draw the model card's image: the best match of a name on random photos, good or bad."""
    free = {
        row.name
        for row in coco.read(folder / "instances.json").images
        if row.licence in FREE_LICENCES
    }
    held_out = datasets.read_folder(folder)[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    usable = [
        sample
        for sample in held_out
        if sample.path.relative_to(folder / "images").as_posix() in free
    ]
    queries = [(sample, name) for sample in usable for name in sorted(_askable(sample))]
    rows = np.random.default_rng(LOT).permutation(len(queries))[:DRAWN]
    images, captions = [], []
    for sample, name in (queries[row] for row in rows):
        result = segmenter(sample.load(), name, selection=Selection(best=True))
        iou = float(result.masks.iou(sample.masks).max(initial=0))
        images.append(overlay(result))
        captions.append(f'"{name}": IoU {iou:.2f} with a labelled object')
    return contact_sheet(images, captions, columns=4)  # 4 x 3


def _askable(sample: datasets.Sample) -> set[str]:
    return {name for name, large in zip(sample.names, sample.askable, strict=True) if large}


def main(
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("tests/golden/mini.json"),
    samples: Annotated[Path, typer.Option(help="Folder of the samples.")] = Path("samples"),
    scenes: Annotated[Path, typer.Option(help="Folder of labelled scenes.")] = Path(
        "tests/data/scenes"
    ),
    weights: Annotated[Path, typer.Option(help="Folder of manifest.json.")] = Path("weights"),
    photos: BackgroundPhotos = None,
    only_stamp: Annotated[
        bool, typer.Option("--only-stamp", help="Only write the hashes.")
    ] = False,
) -> None:
    """Write hashes, answers, and the metrics minus a margin."""
    stamp(weights)
    if only_stamp:
        return
    segmenter = load("mini", device="cpu")
    report = evaluate_text(segmenter, datasets.read_folder(scenes)[::STEP])
    values = {name: getattr(report, name) for name in FIGURES}
    least = {
        name: round(float(v() if callable(v) else v) - MARGIN, 3) for name, v in values.items()
    }
    answers = [answer(segmenter, sample, samples) for sample in SAMPLES]
    clicks = {name: round(value - MARGIN, 3) for name, value in clicked(scenes).items()}
    table = {"at least": least, "clicks at least": clicks, "samples": answers}
    atomic.write(out, (json.dumps(table, indent=1) + "\n").encode())
    Path("docs").mkdir(exist_ok=True)
    demo(segmenter, samples).save("docs/demo.png")
    if photos:
        answers_on_photos(segmenter, photos).save("docs/mini-on-photos.png")
    typer.echo(f"{out}: {least}")


if __name__ == "__main__":
    command.run(main)
