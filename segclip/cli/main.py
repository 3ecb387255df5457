"""Put the verbs together; whatever is heavy is imported once a verb runs."""

from __future__ import annotations

import atexit
import errno
import gc
import logging
import sys
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from .. import __version__, lifetime
from ..errors import SegclipError
from ..files import lines
from . import evaluate, weights
from .app import Serving
from .app import run as run_app
from .classify import Sorting, Told
from .classify import run as run_classify
from .export import How, Task
from .export import run as run_export
from .heat import Heating
from .heat import run as run_heat
from .options import Against, Asked, Choice, Models, Output, grouped
from .search import Among, Indexing, Shown, Wanted, Work, run_index, run_search
from .segment import run as run_segment


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
                stream.reconfigure(
                    errors="backslashreplace"
                )  # a file name may hold bytes that are no characters
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
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(weights.app, name="weights")
app.add_typer(evaluate.app, name="evaluate")


@app.command()
@grouped
def segment(asked: Asked, against: Against, choice: Choice, models: Models, output: Output) -> None:
    """Cut out of IMAGE what each TEXT names, what points and boxes show, or everything."""
    _listen(output.verbose)
    run_segment(asked, against, choice, models, output)


@app.command()
@grouped
def export(task: Task, against: Against, choice: Choice, models: Models, how: How) -> None:
    """Write the masks of every image of INPUT to OUT; run it again to go on, or after a change."""
    _listen(how.verbose)
    run_export(task.options(against, choice, models), task, how)


@app.command()
@grouped
def classify(sorting: Sorting, models: Models, told: Told) -> None:
    """Say which of some labels each IMAGE, box or segment shows."""
    _listen(told.verbose)
    run_classify(sorting, models, told)


@app.command()
@grouped
def heat(heating: Heating) -> None:
    """Show where in IMAGE each TEXT is, without proposals: heat maps of an encoder with a patch
    head.
    """
    _listen(verbose=False)
    run_heat(heating)


@app.command()
@grouped
def index(task: Indexing, how: Work) -> None:
    """Make FOLDER searchable by text; run it again after any change, or to go on."""
    _listen(how.verbose)
    run_index(task, how)


@app.command()
@grouped
def search(wanted: Wanted, among: Among, shown: Shown) -> None:
    """Find images of an indexed folder by TEXT or --image, with --regions down to the segment."""
    _listen(shown.verbose)
    run_search(wanted, among, shown)


@app.command("app")
@grouped
def app_(serving: Serving) -> None:
    """Open segclip in the browser; people on other machines see it only with --host."""
    raise typer.Exit(run_app(serving))


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Find what a text names in an image, and cut it out."""
    if version:
        typer.echo(__version__)


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
    atexit.register(
        gc.freeze
    )  # else the interpreter looks for garbage in all that was loaded: half a second
    app(prog_name="segclip")
