"""Run a recipe's ``main`` as a command: what a user can cause is one line on stderr and exit code 2."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any, NoReturn

import typer

from segclip.checks import checked
from segclip.errors import SegclipError

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # what a terminal would obey, as in names of files
_NO_ROOM = ("out of memory", "can't allocate memory")  # what torch says, in a RuntimeError


def run(main: Callable[..., Any]) -> None:
    """Run ``main`` with its options from the command line; Ctrl-C gives 130."""
    logging.basicConfig(format="%(message)s")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold bytes that are no characters
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(checked(main))
    try:
        app(standalone_mode=True)
    except (SegclipError, OSError) as error:
        _fail(str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _NO_ROOM):
            raise
        _fail(f"there is too little memory for this; lower --batch, or the side of the images ({error})")
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _fail(message: str) -> NoReturn:
    shown = _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), " ".join(message.split()))
    typer.echo(f"error: {shown}", err=True)
    raise SystemExit(2) from None
