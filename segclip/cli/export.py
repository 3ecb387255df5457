"""The ``segclip export`` command: masks of whole folders, resumable, with progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import lifetime
from ..errors import BadPrompt
from ..files import lines
from ..files.formats import PER_IMAGE, PER_RUN
from .inputs import local_path
from .options import ModelOptions, RivalOptions, SelectionOptions, WorkerOptions
from .output import ProgressLines
from .parsing import parse_numbers, split_commas

if TYPE_CHECKING:
    from ..batch import ExportOptions, Progress, Running, Summary

FORMATS = tuple(dict.fromkeys((*PER_IMAGE, *PER_RUN)))
STOPPED = "\nstopped; finished work is kept: run the same command again to continue"


@dataclass(frozen=True)
class ExportInput:
    """The images to export, the query, and the formats."""

    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A folder, a glob, a .txt list, or a .csv or .jsonl table.",
            parser=local_path,
        ),
    ]
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the files.")]
    texts: Annotated[list[str] | None, typer.Option("--text", help="What to find; repeatable.")] = (
        None
    )
    texts_file: Annotated[Path | None, typer.Option(help="File with one text per line.")] = None
    boxes: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="X1,Y1,X2,Y2", help="Box in every image; repeatable."),
    ] = None
    everything: Annotated[
        bool,
        typer.Option(
            "--everything",
            help="Segment every object, without texts; with a box, those inside.",
        ),
    ] = False
    boxes_file: Annotated[
        Path | None,
        typer.Option(help="A .csv or .jsonl table of image names inside INPUT and boxes."),
    ] = None
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help=f"Output formats, comma-separated or repeated: {', '.join(FORMATS)}. Default: "
            "png,coco.",
        ),
    ] = None
    feather: Annotated[
        float, typer.Option(help="Width in pixels over which the edge of a cut-out fades.", min=0)
    ] = 0.0

    def options(
        self, rivals: RivalOptions, selection: SelectionOptions, models: ModelOptions
    ) -> ExportOptions:
        """Convert the options to those of the library. Raises BadPrompt, UnknownName."""
        from ..batch import Answers, Ask, ExportOptions

        if self.everything and (self.texts or self.texts_file):
            raise BadPrompt(
                "--everything takes no texts; leave out --text and --texts-file, or --everything"
            )
        boxes = tuple(tuple(parse_numbers("--box", value, (4,))) for value in self.boxes or ())
        return ExportOptions(
            formats=split_commas(self.formats or ["png,coco"]),
            models=models.spec(),
            ask=Ask(self._texts(), boxes, everything=self.everything),
            boxes_of=self.boxes_file,
            answers=Answers(
                negatives=tuple(rivals.negatives or ()),
                backgrounds=tuple(rivals.backgrounds) if rivals.backgrounds else None,
                templates=rivals.templates,
                selection=selection.selection(),
                max_pixels=rivals.max_pixels,
                feather=self.feather,
            ),
        )

    def _texts(self) -> tuple[str, ...]:
        texts = list(self.texts or ())
        if self.texts_file:
            texts += lines.read(self.texts_file, "--texts-file")
        return tuple(dict.fromkeys(texts))


@dataclass(frozen=True)
class ExportRun(WorkerOptions):
    """How an export runs."""

    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Process only shard I of N, for job arrays.")
    ] = None
    max_failures: Annotated[
        int | None, typer.Option(help="Stop when more images than this have failed.", min=0)
    ] = None
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Also print the traceback of each failure.")
    ] = False
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read finished images again, and redo those that changed."),
    ] = False

    def running(self) -> Running:
        """Convert the options to those of the library."""
        from ..batch import Running

        return Running(
            self.workers,
            self.runner,
            self.address,
            self.gpus,
            self.threads,
            self.shard,
            self.retry_failed,
            self.max_failures,
            self.verify,
        )


def run(options: ExportOptions, source: ExportInput, workers: ExportRun) -> None:
    """Export with progress and a summary; exit with code 1 when an image failed."""
    from .. import batch

    running = workers.running()
    try:
        with progress_bar() as report:
            summary = batch.export(
                source.source, source.out, options=options, running=running, report=report
            )
    except KeyboardInterrupt as interrupt:
        typer.echo(STOPPED, err=True)
        raise typer.Exit(lifetime.exit_code(interrupt)) from None
    _report(summary, source.out, workers.verbose)
    if not summary.images:
        typer.echo(f"no image was found in {source.source}", err=True)
        raise typer.Exit(1)
    incomplete = summary.missing and running.part is None  # an image changed meanwhile
    if summary.progress.stopped or summary.states.get("failed") or incomplete:
        raise typer.Exit(1)


def _report(summary: Summary, out: Path, verbose: bool) -> None:
    progress = summary.progress
    typer.echo(
        f"{progress.now} images processed ({progress.rate:.2f}/s), {progress.before} already done"
    )
    if progress.stopped:
        typer.echo(
            f"stopped: {progress.failed} images failed, more than --max-failures; see {out}, then "
            "run the command again",
            err=True,
        )
    if summary.missing:
        typer.echo(
            f"{summary.missing} of {summary.images} images remain; the shard that finishes last "
            "merges the results"
        )
        return
    typer.echo(", ".join(f"{count} {state}" for state, count in summary.states.items()))
    for path in summary.files:
        typer.echo(f"wrote {path}")
    if summary.states["failed"]:
        _print_failures(out / "failures.jsonl", verbose)


def _print_failures(path: Path, verbose: bool) -> None:
    import json

    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            failure = json.loads(line)
            if number == 5 and not verbose:
                typer.echo(f"... and more: {path}", err=True)
                return
            typer.echo(f"failed: {failure['reason']}", err=True)
            if verbose and failure["traceback"]:
                typer.echo(failure["traceback"], err=True)


@contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar on a terminal, else an occasional line."""
    if not sys.stderr.isatty():
        line = ProgressLines()
        yield lambda now: line(now.now + now.before, now.total, now.rate, _counts(now))
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("loading")
        yield lambda now: bar.update(
            task, total=now.total, completed=now.now + now.before, description=_counts(now)
        )


def _counts(now: Progress) -> str:
    return f"{now.rate:.1f}/s, {now.matched} matched, {now.empty} empty, {now.failed} failed"
