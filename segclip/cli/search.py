"""The ``segclip index`` and ``segclip search`` commands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import lifetime
from ..errors import BadPrompt
from .export import STOPPED, progress_bar
from .inputs import local_path
from .options import (
    MAX_PIXELS,
    POLICY,
    TEMPLATES,
    Device,
    MaxPixels,
    Offline,
    Trust,
    WorkerOptions,
)
from .output import OUT

if TYPE_CHECKING:
    from ..batch import Running
    from ..search import Filter, Indexed, IndexOptions, Match, Query

ENCODER = typer.Option(
    help="Encoder: a preset for its own, MODEL/TAG, MODEL/file:PATH, file:FOLDER, hf-hub:REPO."
)


@dataclass(frozen=True)
class IndexInput:
    """The folder to index, and how; options left out keep the index's own values."""

    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder of images.", parser=local_path)
    ]
    regions: Annotated[
        bool,
        typer.Option("--regions", help="Index every segment too: slower, but finds small objects."),
    ] = False
    out: Annotated[
        Path | None, typer.Option(help="Folder of the index. Default: inside FOLDER.")
    ] = None
    encoder: Annotated[str | None, ENCODER] = None
    proposer: Annotated[
        str | None, typer.Option(help="Proposer of the segments, or a preset for its own.")
    ] = None
    policy: Annotated[str | None, POLICY] = None
    engine: Annotated[str, typer.Option(help="auto, numpy or lancedb.")] = "auto"
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Discard the existing index.")] = False
    max_pixels: MaxPixels = MAX_PIXELS
    device: Device = "auto"
    offline: Offline = False
    trust: Trust = False
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Also drop images whose folder is empty or unreadable."),
    ] = False

    def options(self) -> IndexOptions:
        """Convert the options to those of the library."""
        from ..loading import ModelSpec
        from ..search import IndexOptions

        return IndexOptions(
            models=ModelSpec(
                self.proposer, self.encoder, self.device, self.policy, self.offline, self.trust
            ),
            regions=self.regions,
            engine=self.engine,
            rebuild=self.rebuild,
            max_pixels=self.max_pixels,
            prune=self.prune,
        )


@dataclass(frozen=True)
class IndexRun(WorkerOptions):
    """How indexing runs."""

    verify: Annotated[
        bool, typer.Option("--verify", help="Read every image again to detect changes.")
    ] = False
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Report every image that failed.")
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
            retry_failed=self.retry_failed,
            verify=self.verify,
        )


@dataclass(frozen=True)
class SearchInput:
    """The index, and the query."""

    index: Annotated[
        Path,
        typer.Argument(
            metavar="INDEX",
            help="An indexed folder, or the folder of its index.",
            parser=local_path,
        ),
    ]
    text: Annotated[str | None, typer.Argument(help="What to find, such as 'a red umbrella'.")] = (
        None
    )
    image: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Find images similar to this one, alone or with the text.",
            parser=local_path,
        ),
    ] = None
    negatives: Annotated[
        list[str] | None, typer.Option("--not", metavar="TEXT", help="Text to exclude; repeatable.")
    ] = None
    regions: Annotated[
        bool, typer.Option("--regions", help="Search segments instead of whole images.")
    ] = False
    templates: Annotated[str | None, TEMPLATES] = None
    n: Annotated[
        int, typer.Option("--top-k", "-k", "-n", "--count", help="Number of images.", min=1)
    ] = 9
    encoder: Annotated[
        str | None,
        typer.Option(
            help="The index's encoder, if it is not a published one: MODEL/file:PATH, file:FOLDER."
        ),
    ] = None
    device: Device = "auto"
    offline: Offline = False
    trust: Trust = False

    def query(self) -> Query:
        """Convert the options to a query. Raises BadPrompt."""
        from ..search import Query

        if self.text is not None and not self.text.strip():
            raise BadPrompt(
                "an empty text was given; name what to find, for example 'a red umbrella'"
            )
        return Query(self.text or "", self.image, tuple(self.negatives or ()), self.templates)


@dataclass(frozen=True)
class FilterOptions:
    """Which images are searched."""

    folder: Annotated[str | None, typer.Option(help="Only this folder inside the indexed one.")] = (
        None
    )
    after: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Taken on this day or later.")
    ] = None
    before: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Taken on this day or earlier.")
    ] = None
    min_side: Annotated[
        int | None, typer.Option(help="Shorter side in pixels, at least.", min=1)
    ] = None
    max_side: Annotated[int | None, typer.Option(help="Longer side in pixels, at most.", min=1)] = (
        None
    )

    def where(self) -> Filter:
        """Convert the options to a filter. Raises BadPrompt."""
        from ..search import Filter

        return Filter(
            self.folder,
            _day("--after", self.after),
            _day("--before", self.before),
            self.min_side,
            self.max_side,
        )


@dataclass(frozen=True)
class SearchOutput:
    """What is printed and written."""

    sheet: Annotated[
        Path | None, typer.Option(help=f"Contact sheet of the results. Default: {OUT}/search.png.")
    ] = None
    copy: Annotated[Path | None, typer.Option(help="Copy the images to this new folder.")] = None
    link: Annotated[Path | None, typer.Option(help="Link the images in this new folder.")] = None
    record: Annotated[
        bool, typer.Option("--json", help="Print JSON; a contact sheet only with --sheet.")
    ] = False
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log what is loaded.")] = False


def run_index(source: IndexInput, workers: IndexRun) -> None:
    """Index with a progress display, and print a summary."""
    from ..search import make_index

    running = workers.running()
    try:
        with progress_bar() as report:
            done = make_index(
                source.folder, source.options(), out=source.out, running=running, report=report
            )
    except KeyboardInterrupt as interrupt:
        typer.echo(STOPPED, err=True)
        raise typer.Exit(lifetime.exit_code(interrupt)) from None
    _report(done, workers.verbose)
    if done.failed and not done.images:
        raise typer.Exit(1)


def run_search(source: SearchInput, filters: FilterOptions, output: SearchOutput) -> None:
    """Search, print the matches, and draw a contact sheet."""
    from ..search import Index, results

    query, where = source.query(), filters.where()
    index = Index(
        source.index,
        encoder=source.encoder,
        device=source.device,
        offline=source.offline,
        trust=source.trust,
    )
    matches = index.search(query, n=source.n, regions=source.regions, where=where)
    if output.record:
        typer.echo(json.dumps(results.to_records(index, matches), ensure_ascii=False))
    else:
        _print(matches, len(index))
    sheet = output.sheet or (None if output.record or not matches else OUT / "search.png")
    written = [results.write_sheet(index, matches, sheet)] if sheet else []
    for folder, link in ((output.copy, False), (output.link, True)):
        written += results.gather(matches, folder, link=link) if folder else []
    for path in written:
        typer.echo(f"wrote {path}", err=output.record)


def _report(done: Indexed, verbose: bool) -> None:
    progress = done.progress
    changes = [
        f"{progress.matched} embedded",
        f"{progress.before} unchanged",
        f"{done.moved} moved",
        f"{done.removed} removed",
    ]
    size = f"{_count(done.images, 'image')} and {_count(done.regions, 'region')}"
    typer.echo(f"{size} in the index: {', '.join(changes)}")
    if done.engine == "lancedb":
        typer.echo("stored in LanceDB")
    for number, reason in enumerate(done.failed):
        if number == 5 and not verbose:
            typer.echo(f"... and {len(done.failed) - 5} more: -v shows all", err=True)
            break
        typer.echo(f"failed: {reason}", err=True)
    for line in done.unreachable:
        typer.echo(f"unreachable: {line}", err=True)
    if done.unreachable:
        typer.echo("their entries stay in the index; --prune drops them", err=True)
    typer.echo(f"wrote {done.path}")


def _print(matches: tuple[Match, ...], searched: int) -> None:
    if not matches:
        reason = "and the filters and --not leave none of them" if searched else "index some first"
        typer.echo(f"no matches: the index holds {_count(searched, 'image')}, {reason}")
        return
    typer.echo("similarity  probability  box x1,y1,x2,y2    path")
    for match in matches:
        box = ",".join(map(str, match.box)) if match.box else "-"
        typer.echo(f"{match.similarity:10.3f}  {match.probability:11.2f}  {box:17}  {match.path}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _day(flag: str, value: str | None) -> date | None:
    try:
        return date.fromisoformat(value) if value else None
    except ValueError:
        raise BadPrompt(f"{flag} takes a date such as {flag} 2025-06-30; got {value!r}") from None
