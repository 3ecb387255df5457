"""Run a recipe's ``main`` as a command: what a user can cause is one line on stderr and exit code
2.
"""

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

_NO_ROOM = ("out of memory", "can't allocate memory")  # what torch says, in a RuntimeError


class _Recipe(TyperCommand):
    def invoke(self, ctx: Any) -> Any:
        """Run the recipe; Ctrl-C gives 130, SIGTERM 143."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(lifetime.exit_code(interrupt)) from None


def run(main: Callable[..., Any]) -> None:
    """Run ``main`` with its options from the command line, until it ends, is stopped, or its
    starter ends.
    """
    lifetime.end_with_starter()
    lifetime.stop_on_signals()
    logging.basicConfig(format="%(message)s")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a file name may hold bytes that are no characters
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(cls=_Recipe)(checked(main))
    try:
        with lines.shown_safely():
            app(standalone_mode=True)
    except (SegclipError, OSError) as error:
        _fail(str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _NO_ROOM):
            raise
        _fail(
            "there is too little memory for this; lower --batch, or the side of the images "
            f"({error})"
        )


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {lines.visible(' '.join(message.split()))}", err=True)
    raise SystemExit(2) from None
