"""The ``segclip evaluate`` commands: measure the whole line on a folder of labelled pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_options import grouped

if TYPE_CHECKING:
    from .datasets import Sample
    from .proposers import Proposer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure on labelled pictures.")


@app.callback()
def top() -> None:
    """Measure on labelled pictures."""


FOLDER = typer.Argument(help="images/ and scenes.json or COCO's instances.json.")
LIMIT = typer.Option(help="Only the first pictures.", min=1)
OFFLINE = typer.Option("--offline", help="Never use the network.")


@dataclass(frozen=True)
class Finding:
    """Which proposer is measured, on what."""

    folder: Annotated[Path, FOLDER]
    proposer: Annotated[str, typer.Option(help="A proposer, or a preset for its own.")] = "mini"
    limit: Annotated[int | None, LIMIT] = None
    offline: Annotated[bool, OFFLINE] = False
    trust: Annotated[bool, typer.Option("--trust", help="Load pickled weights the manifest doesn't know.")] = False

    def load(self) -> tuple[Proposer, list[Sample]]:
        """Load the proposer and the first pictures."""
        from . import datasets, loading

        samples = datasets.read_folder(self.folder)[: self.limit]
        return loading.load_proposer(self.proposer, options=loading.LoadOptions(self.offline, self.trust)), samples


@app.command()
def text(
    folder: Annotated[Path, FOLDER],
    preset: Annotated[str, typer.Option(help="A preset, or a proposer when --encoder is given.")] = "mini",
    encoder: Annotated[str | None, typer.Option(help="An encoder, as in `segclip segment`.")] = None,
    limit: Annotated[int | None, LIMIT] = None,
    offline: Annotated[bool, OFFLINE] = False,
) -> None:
    """Ask each picture for every name in it and for names that are not: recall, right answers, silence."""
    from . import datasets, evaluate, loading

    samples = datasets.read_folder(folder)[:limit]
    segmenter = loading.load(preset, encoder, options=loading.LoadOptions(offline=offline))
    with _progress(samples) as tell:
        report = evaluate.evaluate_text(segmenter, samples, tell)
    _show(report.table())


@app.command()
@grouped
def proposals(finding: Finding) -> None:
    """Ask for everything and count what is found: average recall at 10, 100 and 1000 candidates, and by size."""
    from .recall import evaluate_proposals

    proposer, samples = finding.load()
    with _progress(samples) as tell:
        report = evaluate_proposals(proposer, samples, tell)
    _show(report.table())


@app.command()
@grouped
def clicks(finding: Finding) -> None:
    """Click on every object as a person who corrects would, and draw its box: mean IoU after 1, 3 and 5 clicks."""
    from .clicks import evaluate_clicks

    proposer, samples = finding.load()
    with _progress(samples) as tell:
        report = evaluate_clicks(proposer, samples, tell=tell)
    _show(report.table())


@contextmanager
def _progress(samples: Sequence[object]) -> Iterator[Callable[[int, int], None]]:
    with typer.progressbar(length=len(samples), label="pictures", file=sys.stderr) as bar:
        yield lambda done, total: bar.update(1)


def _show(table: list[tuple[str, str]]) -> None:
    for name, value in table:
        typer.echo(f"{name:48} {value}")
