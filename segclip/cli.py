"""The ``segclip`` command: one typed function a verb; whatever is heavy is imported once a verb runs."""

from __future__ import annotations

import atexit
import errno
import gc
import json
import logging
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from . import (
    __version__,
    cli_app,
    cli_classify,
    cli_evaluate,
    cli_export,
    cli_heat,
    cli_search,
    cli_weights,
    lifetime,
    lines,
)
from .cli_app import Serving
from .cli_classify import Sorting, Told
from .cli_export import How, Task
from .cli_heat import Heating
from .cli_options import Against, Asked, Choice, Models, Output, grouped
from .cli_search import Among, Indexing, Shown, Wanted, Work
from .errors import SegclipError

if TYPE_CHECKING:
    from .selection import Selection
    from .types import Result


class Commands(TyperGroup):
    """Turn the errors a user can cause into one line on stderr and exit code 2."""

    def main(  # type: ignore[override]
        self,
        args: Any = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
    ) -> Any:
        """Run a command line; what is printed of it, by click too, cannot steer a terminal."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a file name may hold bytes that are no characters
        with lines.shown_safely():
            return super().main(args, prog_name, complete_var, standalone_mode, windows_expand_args)

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; Ctrl-C gives 130, SIGTERM 143."""
        try:
            return super().invoke(ctx)
        except SegclipError as error:
            _fail(str(error))
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output left: no error of anyone's
                raise
            _fail(str(error))
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(lifetime.exit_code(interrupt)) from None


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
app.add_typer(cli_weights.app, name="weights")
app.add_typer(cli_evaluate.app, name="evaluate")


@app.command()
@grouped
def segment(asked: Asked, against: Against, choice: Choice, models: Models, output: Output) -> None:
    """Cut out of IMAGE what each TEXT names, what points and boxes show, or everything."""
    from . import images

    _listen(output.verbose)
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


@app.command()
@grouped
def export(task: Task, against: Against, choice: Choice, models: Models, how: How) -> None:
    """Write the masks of every picture of INPUT to OUT; run it again to go on, or after a change."""
    _listen(how.verbose)
    cli_export.run(task.options(against, choice, models), task, how)


@app.command()
@grouped
def classify(sorting: Sorting, models: Models, told: Told) -> None:
    """Say which of some labels each IMAGE, box or segment shows."""
    _listen(told.verbose)
    cli_classify.run(sorting, models, told)


@app.command()
@grouped
def heat(heating: Heating) -> None:
    """Show where in IMAGE each TEXT is, without proposals: heat maps of an encoder with a patch head."""
    _listen(verbose=False)
    cli_heat.run(heating)


@app.command()
@grouped
def index(task: Indexing, how: Work) -> None:
    """Make FOLDER searchable by text; run it again after any change, or to go on."""
    _listen(how.verbose)
    cli_search.index(task, how)


@app.command()
@grouped
def search(wanted: Wanted, among: Among, shown: Shown) -> None:
    """Find pictures of an indexed folder by TEXT or --image, with --regions down to the segment."""
    _listen(shown.verbose)
    cli_search.search(wanted, among, shown)


@app.command("app")
@grouped
def app_(serving: Serving) -> None:
    """Open segclip in the browser; people on other machines see it only with --host."""
    raise typer.Exit(cli_app.run(serving))


def _best_first(result: Result, selection: Selection) -> Result:
    """Keep a click's best mask, or as many as asked for, and say which others there are."""
    if "point" not in result.asked:
        return result
    kept = result[: selection.top_k or 1]
    if others := len(result) - len(kept):
        qualities = ", ".join(f"{quality:.2f}" for quality in result.quality[len(kept) :])
        typer.echo(
            f"{others} other masks at this point, of quality {qualities}: --top-k {len(result)} keeps them", err=True
        )
    return kept


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Find what a text names in a picture, and cut it out."""
    if version:
        typer.echo(__version__)


def _report(result: Result, image: Path, targets: dict[str, str], output: Output) -> None:
    from . import exporters, outputs

    def write(folder: Path) -> list[Path]:
        return [path for name, file in targets.items() for path in exporters.save(result, folder / file, format=name)]

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
    if not result.nearest or result.nearest[row] >= result.threshold:  # then words of place left none
        return ""
    return f" (best {result.nearest[row]:.2f}, threshold {result.threshold:.2f})"


def _table(result: Result) -> list[str]:
    columns = zip(result.texts, result.probability, result.similarity, result.quality, result.masks.boxes, strict=True)
    rows = [("text", "probability", "similarity", "quality", "box x1,y1,x2,y2")]
    rows += [
        (text, _shown(p, 2), _shown(s, 3), _shown(q, 2), ",".join(map(str, box))) for text, p, s, q, box in columns
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _shown(value: float, digits: int) -> str:
    return "-" if value != value else f"{value:.{digits}f}"  # NaN: no text was asked


def _listen(verbose: bool) -> None:
    """Send what the library logs to stderr."""
    log = logging.getLogger("segclip")
    log.handlers = [logging.StreamHandler()]
    log.setLevel(logging.INFO if verbose else logging.WARNING)


def _fail(message: str) -> NoReturn:
    typer.echo(f"segclip: {' '.join(message.split())}", err=True)
    raise typer.Exit(2) from None


def main() -> None:
    """Run as a process of its own."""
    lines.open_missing_streams()
    lifetime.stop_on_signals()
    atexit.register(gc.freeze)  # else the interpreter looks for garbage in all that was loaded: half a second
    app(prog_name="segclip")
