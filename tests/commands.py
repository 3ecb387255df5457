"""Helpers of the tests of commands: run one, and list what it wrote."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from segclip.cli import main as cli
from segclip.files import outputs


def run(*arguments: str | Path) -> Result:
    """Run segclip with these arguments."""
    return CliRunner().invoke(cli.app, list(map(str, arguments)))


def written(folder: Path) -> list[str]:
    """Return the names of the files in a folder's segclip-out."""
    return sorted(
        path.name for path in (folder / "segclip-out").glob("*") if path.name != outputs.STATE
    )
