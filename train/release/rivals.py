"""Measure what lets an encoder be silent about absent things: backgrounds, names, calibration.

    python -m train.release.rivals ../shared/coco-dev --encoder mini --encoder file:runs/mine

Each encoder is taken as if it had no settings but its crops: with the five background texts and
the threshold that are the default, with everyday names beside them, and calibrated on the regions
that ship.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from segclip.encoders import Encoder, Serving
from segclip.evaluation.datasets import Sample, read_folder
from segclip.evaluation.text import Report, evaluate_servings
from segclip.loading import load_encoder, load_proposer
from segclip.scoring.calibration import fit
from segclip.scoring.labelled import LabelledRegions, known_file
from segclip.scoring.scorers import CropScorer, scorer_of
from segclip.segmenter import Segmenter

from ..engine import command
from ..scenes.photos import HELD_OUT_EVERY


def choices(encoder: Encoder) -> dict[str, Serving]:
    """Return the settings to compare, by name; the encoder's own come last."""
    own = encoder.serving
    plain = Serving(own.policy, scorer=own.scorer)
    encoder.serving = plain
    calibrated = fit(encoder, scorer_of(encoder), LabelledRegions.read(known_file())).serving
    encoder.serving = own
    named = replace(plain, vocabulary=True)
    found = {"five backgrounds": plain, "and everyday names": named, "calibrated": calibrated}
    return found | ({"its own settings": own} if own.calibrated else {})


def compare(segmenter: Segmenter, samples: Sequence[Sample]) -> dict[str, Report]:
    """Measure every choice, those of one crop policy on the same regions."""
    named = choices(segmenter.encoder)
    reports: dict[str, Report] = {}
    for policy in dict.fromkeys(serving.policy for serving in named.values()):
        alike = {name: serving for name, serving in named.items() if serving.policy == policy}
        scorer = segmenter.scorer
        if isinstance(scorer, CropScorer):
            scorer = CropScorer(segmenter.encoder, policy)
        measured = evaluate_servings(
            replace(segmenter, scorer=scorer), list(alike.values()), samples
        )
        reports |= dict(zip(alike, measured, strict=True))
    return {name: reports[name] for name in named}


def main(
    folder: Annotated[Path, typer.Argument(help="Labelled images, in COCO's format.")],
    encoder: Annotated[list[str] | None, typer.Option(help="An encoder, repeated.")] = None,
    proposer: Annotated[str, typer.Option(help="The proposer of all of them.")] = "mini",
    limit: Annotated[int | None, typer.Option(help="Use only the first images.", min=1)] = None,
    every: Annotated[bool, typer.Option(help="All images, not every fifth.")] = False,
) -> None:
    """Print a table: right answers, found and silent at the threshold of each choice."""
    samples = read_folder(folder)
    if not every:  # the others were trained on
        samples = samples[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    typer.echo(f"{'encoder':24} {'settings':20} threshold  right  found  silent")
    for name in encoder or ["mini"]:
        segmenter = Segmenter(load_proposer(proposer), load_encoder(name, calibrate=False))
        for settings, report in compare(segmenter, samples[:limit]).items():
            typer.echo(
                f"{name:24} {settings:20} {report.threshold:9.3f}  {report.right:5.3f}  "
                f"{report.found():5.3f}  {report.silent():6.3f}"
            )


if __name__ == "__main__":
    command.run(main)
