"""The ``segclip evaluate`` commands: measure the whole line on a folder of labelled pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure on labelled pictures.")


@app.callback()
def top() -> None:
    """Measure on labelled pictures."""


@app.command()
def text(
    folder: Annotated[Path, typer.Argument(help="images/ and scenes.json or COCO's instances.json.")],
    preset: Annotated[str, typer.Option(help="A preset, or a proposer when --encoder is given.")] = "mini",
    encoder: Annotated[str | None, typer.Option(help="An encoder, as in `segclip segment`.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first pictures.", min=1)] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
) -> None:
    """Ask each picture for every name in it and for names that are not: recall, right answers, silence."""
    from . import datasets, evaluate, pipeline

    samples = datasets.read_folder(folder)[:limit]
    segmenter = pipeline.load(preset, encoder, options=pipeline.LoadOptions(offline=offline))
    with typer.progressbar(length=len(samples), label="pictures", file=sys.stderr) as bar:
        report = evaluate.evaluate_text(segmenter, samples, lambda done, total: bar.update(1))
    for name, value in report.table():
        typer.echo(f"{name:48} {value}")
