"""Run a recipe's ``main`` as a command: what a user can cause is one line on stderr and exit code 2."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

from segclip import lifetime
from segclip.checks import checked
from segclip.errors import SegclipError


class _Recipe(TyperCommand):
    def invoke(self, ctx: Any) -> Any:
        """Run the recipe; Ctrl-C gives 130, SIGTERM 143."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(lifetime.exit_code(interrupt)) from None


def run(main: Callable[..., Any]) -> None:
    """Run ``main`` with its options from the command line, until it ends, is stopped, or its starter ends."""
    lifetime.end_with_starter()
    lifetime.stop_on_signals()
    logging.basicConfig(format="%(message)s")
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(cls=_Recipe)(checked(main))
    try:
        app(standalone_mode=True)
    except (SegclipError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
