"""What a command writes and prints: files, formats, records, progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import Annotated

import typer

from ..errors import BadPrompt
from ..files.formats import PER_IMAGE
from .parsing import split_commas

OUT = Path("segclip-out")
FORMATS = "overlay,png,cutout,json"
EVERY = 30.0  # s between progress lines without a terminal


@dataclass(frozen=True)
class OutputOptions:
    """What is printed and written."""

    out: Annotated[Path | None, typer.Option(help=f"Folder for the files. Default: {OUT}.")] = None
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help=f"Output formats, comma-separated or repeated: {', '.join(PER_IMAGE)}. Default: "
            f"{FORMATS}.",
        ),
    ] = None
    record: Annotated[
        bool, typer.Option("--json", help="Print the JSON record; files only with --out.")
    ] = False
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Log what is loaded and how long it takes.")
    ] = False

    def targets(self, image: Path) -> dict[str, str]:
        """Return the file name by format. Raises UnknownName or BadPrompt before any work."""
        from .. import registry
        from ..files import outputs

        if self.folder and self.folder.exists() and not self.folder.is_dir():
            raise BadPrompt(f"--out {self.folder} is a file; give a folder")
        names = split_commas(self.formats or [FORMATS])
        if not names:
            raise BadPrompt(f"--format is empty; choose from {', '.join(PER_IMAGE)}")
        stem = outputs.shortened(image.stem)
        return {name: f"{stem}.{registry.choose(PER_IMAGE, name, 'format')}" for name in names}

    @property
    def folder(self) -> Path | None:
        """Return the output folder; None where no files are written."""
        return self.out or (None if self.record else OUT)

    @contextmanager
    def timed(self, message: str) -> Iterator[None]:
        """Print on a terminal what is running, and how long it took."""
        visible = sys.stderr.isatty() and not self.record and not self.verbose
        start = perf_counter()
        if visible:
            typer.echo(f"{message} ...", nl=False, err=True)
        yield
        if visible:
            typer.echo(f" {perf_counter() - start:.1f} s", err=True)


class ProgressLines:
    """Progress as an occasional line, where there is no terminal."""

    def __init__(self) -> None:
        self.last = monotonic()

    def __call__(self, done: int, total: int, rate: float, details: str) -> None:
        """Report a step. rate: steps per second."""
        if monotonic() - self.last < EVERY:
            return
        self.last = monotonic()
        typer.echo(
            f"{done} of {total}, {details}, {(total - done) / max(rate, 1e-9) / 60:.0f} min left",
            err=True,
        )


@contextmanager
def progress_of(images: Sequence[object]) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal, else an occasional line."""
    if sys.stderr.isatty():
        with typer.progressbar(length=len(images), label="images", file=sys.stderr) as bar:
            yield lambda done, total: bar.update(done - bar.pos)
        return
    start, line = monotonic(), ProgressLines()

    def report(done: int, total: int) -> None:
        rate = done / max(monotonic() - start, 1e-9)
        line(done, total, rate, f"{rate:.1f}/s" if rate >= 1 else f"{rate:.3f}/s")

    yield report


def print_table(table: Sequence[tuple[str, str]]) -> None:
    """Print figures, a line each."""
    for name, value in table:
        typer.echo(f"{name:48} {value}")
