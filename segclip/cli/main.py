"""Assemble the subcommands; heavy modules are imported only when one runs."""

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
from . import concepts, evaluate, weights
from .app import ServerOptions
from .app import run as run_app
from .calibrate import CalibrationOptions
from .calibrate import run as run_calibrate
from .classify import ClassifyOptions, ClassifyOutput
from .classify import run as run_classify
from .export import ExportInput, ExportRun
from .export import run as run_export
from .heat import HeatOptions
from .heat import run as run_heat
from .options import ModelOptions, QueryOptions, RivalOptions, SelectionOptions
from .output import OutputOptions
from .parsing import grouped
from .samples import SamplesOptions
from .samples import run as run_samples
from .search import (
    FilterOptions,
    IndexInput,
    IndexRun,
    SearchInput,
    SearchOutput,
    run_index,
    run_search,
)
from .segment import run as run_segment


class _Stderr(logging.StreamHandler[Any]):
    """Log to the current stderr, which a test or a notebook may have replaced."""

    @property
    def stream(self) -> Any:
        """Return it."""
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        """Ignore what logging would keep."""


# that of the click which typer brings, or of the click which older ones need
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_HELP_FLAGS = {"help_option_names": ["-h", "--help"]}


class Commands(TyperGroup):
    """Report errors that a user can cause as one line on stderr, with exit code 2."""

    def main(  # type: ignore[override]
        self,
        args: Any = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
    ) -> Any:
        """Run a command line; control characters in its output are escaped, click's included."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                # a file name may hold bytes that are not valid UTF-8
                stream.reconfigure(errors="backslashreplace")
        with lines.escaping_output():
            return super().main(args, prog_name, complete_var, standalone_mode, windows_expand_args)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Parse the options that come before a subcommand."""
        try:
            return super().make_context(*args, **extra)
        except _UsageError as error:
            _refuse(error)

    def invoke(self, ctx: Any) -> Any:
        """Run a subcommand; Ctrl-C exits with 130, SIGTERM with 143."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            _refuse(error)
        except SegclipError as error:
            _fail(str(error))
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of the output closed the pipe
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
    context_settings=_HELP_FLAGS,
)
app.add_typer(concepts.app, name="concepts")
app.add_typer(weights.app, name="weights")
app.add_typer(evaluate.app, name="evaluate")


@app.command()
@grouped
def segment(
    query: QueryOptions,
    rivals: RivalOptions,
    selection: SelectionOptions,
    models: ModelOptions,
    output: OutputOptions,
) -> None:
    """Segment what each TEXT names in IMAGE, what points and boxes mark, or every object."""
    _log_to_stderr(output.verbose)
    run_segment(query, rivals, selection, models, output)


@app.command()
@grouped
def export(
    source: ExportInput,
    rivals: RivalOptions,
    selection: SelectionOptions,
    models: ModelOptions,
    workers: ExportRun,
) -> None:
    """Write the masks of every image of INPUT to OUT; run it again to resume or to update."""
    _log_to_stderr(workers.verbose)
    run_export(source.options(rivals, selection, models), source, workers)


@app.command()
@grouped
def classify(query: ClassifyOptions, models: ModelOptions, output: ClassifyOutput) -> None:
    """Classify each IMAGE, box or segment among the given labels."""
    _log_to_stderr(output.verbose)
    run_classify(query, models, output)


@app.command()
@grouped
def calibrate(options: CalibrationOptions) -> None:
    """Fit threshold, scale and crops of ENCODER on DATA; write them beside a file: run."""
    _log_to_stderr(verbose=False)
    run_calibrate(options)


@app.command()
@grouped
def heat(query: HeatOptions) -> None:
    """Draw heat maps of each TEXT in IMAGE, without proposals, by an encoder with a patch head."""
    _log_to_stderr(verbose=False)
    run_heat(query)


@app.command()
@grouped
def index(source: IndexInput, workers: IndexRun) -> None:
    """Make FOLDER searchable by text; run it again after a change, or to resume."""
    _log_to_stderr(workers.verbose)
    run_index(source, workers)


@app.command()
@grouped
def search(query: SearchInput, filters: FilterOptions, output: SearchOutput) -> None:
    """Find images of an indexed folder by TEXT or --image; with --regions, segments."""
    _log_to_stderr(output.verbose)
    run_search(query, filters, output)


@app.command("app")
@grouped
def app_(options: ServerOptions) -> None:
    """Open segclip in the browser; other machines can connect only with --host."""
    raise typer.Exit(run_app(options))


@app.command()
@grouped
def samples(options: SamplesOptions) -> None:
    """Copy the sample images to DIR."""
    run_samples(options)


@app.command("help")
def help_(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND]...", help="Such as: weights get.")
    ] = None,
) -> None:
    """Print the help of segclip or of a command, as --help does."""
    app([*(names or ()), "--help"], prog_name=ctx.find_root().info_name)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Segment images by text, clicks and boxes; classify, index and search them."""
    if version:
        typer.echo(__version__)


def _log_to_stderr(verbose: bool) -> None:
    """Send the library's log to stderr."""
    log = logging.getLogger("segclip")
    log.handlers = [_Stderr()]
    log.setLevel(logging.INFO if verbose else logging.WARNING)


def _refuse(error: Any) -> NoReturn:
    """Report a command line that cannot be parsed as one line."""
    if type(error).__name__ == "NoArgsIsHelpError":  # prints the help
        raise error
    message = error.format_message().replace(". Did you", "; did you").rstrip(".")
    message = f"{message[:1].lower()}{message[1:]}"
    if "unexpected extra argument" in message:
        message += "; put a text of several words in quotes"
    path = error.ctx.command_path if error.ctx else "segclip"
    _fail(f"{message} (see {path} --help)")


def _fail(message: str) -> NoReturn:
    typer.echo(f"segclip: {' '.join(message.split())}", err=True)
    raise typer.Exit(2) from None


def main() -> None:
    """Run the command line as a process."""
    lines.open_missing_streams()
    lifetime.stop_on_signals()
    # spares the half second that the final garbage collection of all modules takes
    atexit.register(gc.freeze)
    app(prog_name="segclip")
