"""Store what the shipped weights answer on the samples, for tests/golden: run once after new weights.

python -m train.golden
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from segclip.datasets import read_folder
from segclip.evaluate import evaluate_text
from segclip.pipeline import Segmenter, load

from .samples import SAMPLES, Sample

MARGIN = 0.02  # other processors round differently
FIGURES = ("recall", "right", "found", "silent", "mean_iou")


def answer(segmenter: Segmenter, sample: Sample, folder: Path) -> dict[str, object]:
    """Answer a sample's texts."""
    result = segmenter(folder / f"{sample.name}.png", sample.texts)
    columns = zip(result.texts, result.probability.tolist(), result.masks.boxes.tolist(), strict=True)
    rows = [{"text": text, "probability": round(p, 4), "box": box} for text, p, box in columns]
    return {"image": f"{sample.name}.png", "texts": sample.texts, "rows": rows}


def main(
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("tests/golden/mini.json"),
    samples: Annotated[Path, typer.Option(help="Folder of the samples.")] = Path("samples"),
    scenes: Annotated[Path, typer.Option(help="Folder of labelled scenes.")] = Path("tests/data/scenes"),
) -> None:
    """Write the answers and the figures less a margin."""
    segmenter = load("mini", device="cpu")
    report = evaluate_text(segmenter, read_folder(scenes))
    values = {name: getattr(report, name) for name in FIGURES}
    least = {name: round(float(v() if callable(v) else v) - MARGIN, 3) for name, v in values.items()}
    answers = [answer(segmenter, sample, samples) for sample in SAMPLES]
    out.write_text(json.dumps({"at least": least, "samples": answers}, indent=1) + "\n", "utf-8")
    typer.echo(f"{out}: {least}")


if __name__ == "__main__":
    typer.run(main)
