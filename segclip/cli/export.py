"""The ``segclip export`` command: masks of whole folders, with progress, interruption and
resumption.
"""

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
from .options import Against, Choice, Crew, Lines, Models, comma, numbers

if TYPE_CHECKING:
    from ..batch import ExportOptions, Progress, Running, Summary

FORMATS = tuple(dict.fromkeys((*PER_IMAGE, *PER_RUN)))


@dataclass(frozen=True)
class Task:
    """What is exported, and what is asked of it."""

    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help="A folder, a glob, a .txt list, or a .csv or .jsonl table."
        ),
    ]
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the files.")]
    texts: Annotated[list[str] | None, typer.Option("--text", help="What to find; repeatable.")] = (
        None
    )
    texts_file: Annotated[Path | None, typer.Option(help="A file of texts, one a line.")] = None
    boxes: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="X1,Y1,X2,Y2", help="A box in every picture; repeatable."),
    ] = None
    everything: Annotated[
        bool,
        typer.Option(
            "--everything",
            help="Cut out every object where there is no text; with a box, those inside.",
        ),
    ] = False
    boxes_file: Annotated[
        Path | None,
        typer.Option(help="A .csv or .jsonl table of image and boxes, by name inside INPUT."),
    ] = None
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help=f"Files, by comma or repeated: {', '.join(FORMATS)}; png,coco if left out.",
        ),
    ] = None
    feather: Annotated[
        float, typer.Option(help="Pixels over which the edge of a cut-out fades.", min=0)
    ] = 0.0

    def options(self, against: Against, choice: Choice, models: Models) -> ExportOptions:
        """Put the options into the library's terms."""
        from .. import loading, registry
        from ..batch import Answers, Ask, ExportOptions

        preset = registry.choose(loading.PRESETS, models.preset, "preset")
        if self.everything and (self.texts or self.texts_file):
            raise BadPrompt(
                "--everything takes no texts; leave out --text and --texts-file, or --everything"
            )
        boxes = tuple(tuple(numbers("--box", value, (4,))) for value in self.boxes or ())
        return ExportOptions(
            formats=comma(self.formats or ["png,coco"]),
            proposer=models.proposer or preset[0],
            encoder=models.encoder or preset[1],
            device=models.device,
            policy=models.policy,
            ask=Ask(self._texts(), boxes, everything=self.everything),
            boxes_of=self.boxes_file,
            answers=Answers(
                negatives=tuple(against.negatives or ()),
                backgrounds=tuple(against.backgrounds) if against.backgrounds else None,
                templates=against.templates,
                selection=choice.selection(),
                max_pixels=against.max_pixels,
                feather=self.feather,
            ),
            load=loading.LoadOptions(models.offline, models.trust),
        )

    def _texts(self) -> tuple[str, ...]:
        texts = list(self.texts or ())
        if self.texts_file:
            texts += lines.read(self.texts_file, "--texts-file")
        return tuple(dict.fromkeys(texts))


@dataclass(frozen=True)
class How(Crew):
    """How the run runs."""

    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only this part, for job arrays.")
    ] = None
    max_failures: Annotated[
        int | None, typer.Option(help="Stop when more pictures than this failed.", min=0)
    ] = None
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Print the traceback of each failure too.")
    ] = False
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Read all that is done again, and do what turns out to be another."
        ),
    ] = False

    def running(self) -> Running:
        """Put the options into the library's terms."""
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


def run(options: ExportOptions, task: Task, how: How) -> None:
    """Export, show progress, and say how it ended; exit code 1 when a picture failed."""
    from .. import batch

    running = how.running()
    try:
        with shown_progress() as tell:
            summary = batch.export(
                task.source, task.out, options=options, running=running, tell=tell
            )
    except KeyboardInterrupt as interrupt:
        typer.echo(
            "\nstopped; what is done is kept, and the same command goes on from here", err=True
        )
        raise typer.Exit(lifetime.exit_code(interrupt)) from None
    _report(summary, task.out, how.verbose)
    if not summary.images:
        typer.echo(f"no image was found in {task.source}", err=True)
        raise typer.Exit(1)
    incomplete = summary.missing and running.part is None  # an image was changed meanwhile
    if summary.progress.stopped or summary.states.get("failed") or incomplete:
        raise typer.Exit(1)


def _report(summary: Summary, out: Path, verbose: bool) -> None:
    did = summary.progress
    typer.echo(f"{did.now} pictures done now ({did.rate:.2f} a second), {did.before} before")
    if did.stopped:
        typer.echo(
            f"stopped: {did.failed} pictures failed, more than --max-failures; see {out} and run "
            "again",
            err=True,
        )
    if summary.missing:
        typer.echo(
            f"{summary.missing} of {summary.images} pictures are still to do; the run that does "
            "the last one ends it"
        )
        return
    typer.echo(", ".join(f"{count} {state}" for state, count in summary.states.items()))
    for path in summary.files:
        typer.echo(f"wrote {path}")
    if summary.states["failed"]:
        _show_failures(out / "failures.jsonl", verbose)


def _show_failures(path: Path, verbose: bool) -> None:
    import json

    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            told = json.loads(line)
            if number == 5 and not verbose:
                typer.echo(f"... and more: {path}", err=True)
                return
            typer.echo(f"failed: {told['reason']}", err=True)
            if verbose and told["traceback"]:
                typer.echo(told["traceback"], err=True)


@contextmanager
def shown_progress() -> Iterator[Callable[[Progress], None]]:
    """Show a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        line = Lines()
        yield lambda seen: line(seen.now + seen.before, seen.total, seen.rate, _counts(seen))
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
        shown = bar.add_task("loading")
        yield lambda seen: bar.update(
            shown, total=seen.total, completed=seen.now + seen.before, description=_counts(seen)
        )


def _counts(seen: Progress) -> str:
    return f"{seen.rate:.1f}/s, {seen.matched} matched, {seen.empty} empty, {seen.failed} failed"
