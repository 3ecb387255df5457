"""The ``segclip segment`` command: segment one image by texts, prompts, or everything."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .inputs import name_of, read_image
from .options import ModelOptions, QueryOptions, RivalOptions, SelectionOptions
from .output import OutputOptions

if TYPE_CHECKING:
    from ..ranking.selection import Selection
    from ..types import Result


def run(
    query: QueryOptions,
    rivals: RivalOptions,
    selection: SelectionOptions,
    models: ModelOptions,
    output: OutputOptions,
) -> None:
    """Segment, print a table, write the files; with --require exit 1 for an unmatched text."""
    name = name_of(query.image)
    targets, question = output.targets(name), query.question(rivals, selection)
    image = read_image(query.image, max_pixels=rivals.max_pixels)
    segmenter = models.load(output, with_encoder=question.needs_encoder)
    with output.timed(f"segmenting {name.name}"):
        question = replace(question, concepts=query.concepts(segmenter))
        result = segmenter.answer(image, question)
    if not question.texts:
        result = _best_first(result, question.selection)
    _report(result, name, targets, output)
    if not output.record and (hint := models.suggest_larger(query.image)):
        typer.echo(hint, err=True)
    if selection.require and result.unanswered:
        raise typer.Exit(1)


def _best_first(result: Result, selection: Selection) -> Result:
    """Keep a click's best mask, or ``top_k`` of them, and report the others."""
    if "point" not in result.asked:
        return result
    kept = result[: selection.top_k or 1]
    if others := len(result) - len(kept):
        qualities = ", ".join(f"{quality:.2f}" for quality in result.quality[len(kept) :])
        typer.echo(
            f"{others} other masks at this point, quality {qualities}: --top-k {len(result)} "
            "keeps them",
            err=True,
        )
    return kept


def _report(result: Result, image: Path, targets: dict[str, str], output: OutputOptions) -> None:
    from .. import exporters
    from ..files import outputs

    def write(folder: Path) -> list[Path]:
        return [
            path
            for name, file in targets.items()
            for path in exporters.save(result, folder / file, format=name)
        ]

    written = outputs.renew(output.folder, f"segment {image.stem}", write) if output.folder else []
    if output.record:
        typer.echo(json.dumps(exporters.to_record(result), ensure_ascii=False))
        return
    if len(result):
        for line in _table(result):
            typer.echo(line)
    for row, text in enumerate(result.asked):
        if text in result.unanswered:
            typer.echo(f"nothing here matches {text!r}{_near(result, row)}{_apart(text)}")
        if reason := result.reasons[row] if result.reasons else "":
            typer.echo(f"{text!r}: {reason}")
    for path in written:
        typer.echo(f"wrote {path}")


def _near(result: Result, row: int) -> str:
    # above the threshold, words of position ruled the matches out
    if not result.nearest or result.nearest[row] >= result.threshold:
        return ""
    best = f"best {result.nearest[row]:.2f}, threshold {result.threshold:.2f}"
    rather = result.resembles[row] if result.resembles else None
    return f" ({best}{f'; looks like: {rather.name} {rather.probability:.2f}' if rather else ''})"


def _apart(text: str) -> str:
    """Ask whether a text with a comma was meant as several."""
    from ..ranking.positions import parse

    parts = [part.strip() for part in text.split(",")]
    if len(parts) < 2 or "" in parts or parse(text) is not None:
        return ""
    return f"; did you mean {len(parts)} texts? Write {' '.join(map(repr, parts))}"


def _table(result: Result) -> list[str]:
    columns = zip(
        result.texts,
        result.probability,
        result.similarity,
        result.quality,
        result.masks.boxes,
        strict=True,
    )
    rows = [("text", "probability", "similarity", "quality", "box x1,y1,x2,y2")]
    rows += [
        (text, _format(p, 2), _format(s, 3), _format(q, 2), ",".join(map(str, box)))
        for text, p, s, q, box in columns
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _format(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"  # NaN: no text was given
