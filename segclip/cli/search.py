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
from .export import shown_progress
from .options import OUT, Crew

if TYPE_CHECKING:
    from ..batch import Running
    from ..search import Filter, Indexed, IndexOptions, Match, Query

ENCODER = typer.Option(
    help="Encoder: a preset for its own, MODEL/TAG, MODEL/file:PATH, file:FOLDER, hf-hub:REPO."
)
DEVICE = typer.Option(help="auto, cpu, cuda, cuda:1, mps.")
OFFLINE = typer.Option("--offline", help="Never use the network.")
TRUST = typer.Option("--trust", help="Load pickled weights the manifest doesn't know.")


@dataclass(frozen=True)
class Indexing:
    """What is indexed, and how; what is left out is as the index has it."""

    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The pictures.")]
    regions: Annotated[
        bool, typer.Option("--regions", help="Every segment too: slower, and finds small things.")
    ] = False
    out: Annotated[
        Path | None, typer.Option(help="Folder of the index; inside FOLDER if left out.")
    ] = None
    encoder: Annotated[str | None, ENCODER] = None
    proposer: Annotated[
        str | None, typer.Option(help="Proposer of the segments, or a preset for its own.")
    ] = None
    policy: Annotated[str | None, typer.Option(help="How regions are shown to the encoder.")] = None
    engine: Annotated[str, typer.Option(help="auto, numpy or lancedb.")] = "auto"
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Forget the former index.")] = False
    max_pixels: Annotated[int, typer.Option(help="Largest picture that is read.", min=1)] = (
        100_000_000
    )
    device: Annotated[str, DEVICE] = "auto"
    offline: Annotated[bool, OFFLINE] = False
    trust: Annotated[bool, TRUST] = False
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Drop images too whose folder is empty or cannot be read."),
    ] = False

    def options(self) -> IndexOptions:
        """Put the options into the library's terms."""
        from ..loading import LoadOptions
        from ..search import IndexOptions

        return IndexOptions(
            self.proposer,
            self.encoder,
            self.policy,
            self.regions,
            self.engine,
            self.rebuild,
            self.device,
            self.max_pixels,
            LoadOptions(self.offline, self.trust),
            self.prune,
        )


@dataclass(frozen=True)
class Work(Crew):
    """How indexing runs."""

    verify: Annotated[
        bool, typer.Option("--verify", help="Read every image again, to find what changed.")
    ] = False
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Name every picture that failed.")
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
            retry_failed=self.retry_failed,
            verify=self.verify,
        )


@dataclass(frozen=True)
class Wanted:
    """What is looked for."""

    index: Annotated[
        Path, typer.Argument(metavar="INDEX", help="An indexed folder, or the folder of its index.")
    ]
    text: Annotated[str | None, typer.Argument(help="What to find, such as 'a red umbrella'.")] = (
        None
    )
    image: Annotated[
        Path | None, typer.Option(help="A picture to look like, alone or with the text.")
    ] = None
    negatives: Annotated[
        list[str] | None, typer.Option("--not", metavar="TEXT", help="What it is not; repeatable.")
    ] = None
    regions: Annotated[bool, typer.Option("--regions", help="Search the segments.")] = False
    templates: Annotated[
        str | None, typer.Option(help="Sentences a text is put in: a set's name or a file.")
    ] = None
    n: Annotated[int, typer.Option("-n", "--count", help="How many pictures.", min=1)] = 9
    encoder: Annotated[
        str | None,
        typer.Option(
            help="The index's encoder, where it is no published one: MODEL/file:PATH, file:FOLDER."
        ),
    ] = None
    device: Annotated[str, DEVICE] = "auto"
    offline: Annotated[bool, OFFLINE] = False
    trust: Annotated[bool, TRUST] = False

    def query(self) -> Query:
        """Put the options into the library's terms."""
        from ..search import Query

        if self.text is not None and not self.text.strip():
            raise BadPrompt(
                "an empty text was given; say what to look for, for example 'a red umbrella'"
            )
        return Query(self.text or "", self.image, tuple(self.negatives or ()), self.templates)


@dataclass(frozen=True)
class Among:
    """Which pictures are searched."""

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
        """Put the options into the library's terms."""
        from ..search import Filter

        return Filter(
            self.folder,
            _day("--after", self.after),
            _day("--before", self.before),
            self.min_side,
            self.max_side,
        )


@dataclass(frozen=True)
class Shown:
    """What is done with what was found."""

    sheet: Annotated[
        Path | None, typer.Option(help=f"Picture of what was found; {OUT}/search.png if left out.")
    ] = None
    copy: Annotated[Path | None, typer.Option(help="Copy the pictures to this new folder.")] = None
    link: Annotated[Path | None, typer.Option(help="Link the pictures in this new folder.")] = None
    record: Annotated[
        bool, typer.Option("--json", help="Print JSON; a picture only with --sheet.")
    ] = False
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say what is loaded.")] = False


def run_index(task: Indexing, how: Work) -> None:
    """Index, show progress, and say how it ended."""
    from ..search import make_index

    running = how.running()
    try:
        with shown_progress() as tell:
            done = make_index(task.folder, task.options(), out=task.out, running=running, tell=tell)
    except KeyboardInterrupt as interrupt:
        typer.echo(
            "\nstopped; what is done is kept, and the same command goes on from here", err=True
        )
        raise typer.Exit(lifetime.exit_code(interrupt)) from None
    _report(done, how.verbose)
    if done.failed and not done.pictures:
        raise typer.Exit(1)


def run_search(wanted: Wanted, among: Among, shown: Shown) -> None:
    """Search, print what was found, and draw it."""
    from ..loading import LoadOptions
    from ..search import Index, results

    query, where = wanted.query(), among.where()
    load = LoadOptions(wanted.offline, wanted.trust)
    opened = Index(wanted.index, encoder=wanted.encoder, device=wanted.device, load=load)
    found = opened.search(query, n=wanted.n, regions=wanted.regions, where=where)
    if shown.record:
        typer.echo(json.dumps(results.to_records(opened, found), ensure_ascii=False))
    else:
        _print(found, len(opened))
    sheet = shown.sheet or (None if shown.record or not found else OUT / "search.png")
    written = [results.write_sheet(opened, found, sheet)] if sheet else []
    for folder, link in ((shown.copy, False), (shown.link, True)):
        written += results.gather(found, folder, link=link) if folder else []
    for path in written:
        typer.echo(f"wrote {path}", err=shown.record)


def _report(done: Indexed, verbose: bool) -> None:
    did = done.progress
    changes = [
        f"{did.matched} embedded",
        f"{did.before} as before",
        f"{done.moved} moved",
        f"{done.removed} removed",
    ]
    held = f"{_count(done.pictures, 'picture')} and {_count(done.regions, 'region')}"
    typer.echo(f"{held} in the index: {', '.join(changes)}")
    if done.engine == "lancedb":
        typer.echo("kept in LanceDB")
    for number, reason in enumerate(done.failed):
        if number == 5 and not verbose:
            typer.echo(f"... and {len(done.failed) - 5} more: -v shows all", err=True)
            break
        typer.echo(f"failed: {reason}", err=True)
    for line in done.unreachable:
        typer.echo(f"unreachable: {line}", err=True)
    if done.unreachable:
        typer.echo("what the index knows of them stays in it; --prune drops it", err=True)
    typer.echo(f"wrote {done.path}")


def _print(found: tuple[Match, ...], searched: int) -> None:
    if not found:
        left = "and the filters and --not leave none of them" if searched else "index some first"
        typer.echo(f"nothing to show: the index holds {_count(searched, 'picture')}, {left}")
        return
    typer.echo("similarity  probability  box x1,y1,x2,y2    path")
    for match in found:
        box = ",".join(map(str, match.box)) if match.box else "-"
        typer.echo(f"{match.similarity:10.3f}  {match.probability:11.2f}  {box:17}  {match.path}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _day(flag: str, value: str | None) -> date | None:
    try:
        return date.fromisoformat(value) if value else None
    except ValueError:
        raise BadPrompt(f"{flag} takes a day such as {flag} 2025-06-30; got {value!r}") from None
