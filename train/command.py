"""Run a recipe's ``main`` as a command: what a user can cause is one line on stderr and exit code 2."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import typer

from segclip.checks import checked
from segclip.errors import SegclipError


def run(main: Callable[..., Any]) -> None:
    """Run ``main`` with its options from the command line; Ctrl-C gives 130."""
    logging.basicConfig(format="%(message)s")
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(checked(main))
    try:
        app(standalone_mode=True)
    except (SegclipError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
