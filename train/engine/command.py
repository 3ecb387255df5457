"""Run a recipe's ``main`` as a command; user errors are one line on stderr and exit code 2."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand

from segclip import lifetime
from segclip.checks import checked
from segclip.errors import SegclipError
from segclip.files import lines

_NO_ROOM = ("out of memory", "can't allocate memory")  # in torch's RuntimeErrors


class _Recipe(TyperCommand):
    def invoke(self, ctx: Any) -> Any:
        """Run the recipe; Ctrl-C exits with 130, SIGTERM with 143."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(lifetime.exit_code(interrupt)) from None


def run(main: Callable[..., Any]) -> None:
    """Run ``main`` with command line options until it ends, is stopped, or its parent ends."""
    lifetime.end_with_starter()
    lifetime.stop_on_signals()
    logging.basicConfig(format="%(message)s")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may not be valid UTF-8
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(cls=_Recipe)(checked(main))
    try:
        with lines.escaping_output():
            app(standalone_mode=True)
    except (SegclipError, OSError) as error:
        _fail(str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _NO_ROOM):
            raise
        _fail(f"too little memory; lower --batch or the side of the images ({error})")


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {lines.visible(' '.join(message.split()))}", err=True)
    raise SystemExit(2) from None
