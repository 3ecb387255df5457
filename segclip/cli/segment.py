"""The ``segclip segment`` command: cut out of one image what texts, places or nothing in particular
name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .options import Against, Asked, Choice, Models, Output

if TYPE_CHECKING:
    from ..ranking.selection import Selection
    from ..types import Result


def run(asked: Asked, against: Against, choice: Choice, models: Models, output: Output) -> None:
    """Answer, print a table, write the files; exit code 1 with --require where a text matches
    nothing.
    """
    from .. import images

    targets, question = output.targets(asked.image), asked.question(against, choice)
    image = images.load(asked.image, max_pixels=against.max_pixels)
    segmenter = models.load(output, with_encoder=question.needs_encoder)
    with output.telling(f"looking at {asked.image.name}"):
        result = segmenter.answer(image, question)
    if not question.texts:
        result = _best_first(result, question.selection)
    _report(result, asked.image, targets, output)
    if not output.record and (hint := models.suggest_larger(asked.image)):
        typer.echo(hint, err=True)
    if choice.require and result.unanswered:
        raise typer.Exit(1)


def _best_first(result: Result, selection: Selection) -> Result:
    """Keep a click's best mask, or as many as asked for, and say which others there are."""
    if "point" not in result.asked:
        return result
    kept = result[: selection.top_k or 1]
    if others := len(result) - len(kept):
        qualities = ", ".join(f"{quality:.2f}" for quality in result.quality[len(kept) :])
        typer.echo(
            f"{others} other masks at this point, of quality {qualities}: --top-k {len(result)} "
            "keeps them",
            err=True,
        )
    return kept


def _report(result: Result, image: Path, targets: dict[str, str], output: Output) -> None:
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
            typer.echo(f"nothing here matches {text!r}{_near(result, row)}")
        if reason := result.reasons[row] if result.reasons else "":
            typer.echo(f"{text!r}: {reason}")
    for path in written:
        typer.echo(f"wrote {path}")


def _near(result: Result, row: int) -> str:
    if (
        not result.nearest or result.nearest[row] >= result.threshold
    ):  # then words of place left none
        return ""
    return f" (best {result.nearest[row]:.2f}, threshold {result.threshold:.2f})"


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
        (text, _shown(p, 2), _shown(s, 3), _shown(q, 2), ",".join(map(str, box)))
        for text, p, s, q, box in columns
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _shown(value: float, digits: int) -> str:
    return "-" if value != value else f"{value:.{digits}f}"  # NaN: no text was asked
