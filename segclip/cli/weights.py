"""The ``segclip weights`` commands: list, download, verify and locate weights."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import WeightsCorrupt, WeightsMissing
from .options import Offline

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, download, verify and locate weights."
)

Names = Annotated[
    list[str],
    typer.Argument(metavar="NAME...", help="Names from `segclip weights list`, or presets."),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Accept pickled weights whose SHA-256 is not published.")
]


@app.command("list")
def list_() -> None:
    """List the known weights: name, kind, size, whether installed, licence."""
    from .. import weights

    rows = [("name", "kind", "size", "here", "licence")]
    for row in weights.table():
        size = f"{row.bytes / 1e6:,.1f} MB" if row.bytes else "?"
        rows.append(
            (
                row.name,
                row.kind,
                size,
                ("checked" if row.verified else "yes") if row.installed else "no",
                row.licence,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for line in rows:
        typer.echo("  ".join(map(str.ljust, line, widths)).rstrip())


@app.command()
def get(names: Names, trust: Trust = False, offline: Offline = False) -> None:
    """Download weights by name, or both files of a preset, and print their paths."""
    from .. import weights

    for name in _expand(names):
        typer.echo(f"{name}  {weights.get(name, trust=trust)}")


@app.command()
def verify(names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]")] = None) -> None:
    """Recompute the SHA-256 of weights and compare; all installed ones by default."""
    from .. import weights

    checks = [
        weights.verify(name)
        for name in _expand(names or [row.name for row in weights.table() if row.installed])
    ]
    for check in checks:
        by = "the manifest" if check.published else "its first use"
        typer.echo(
            f"{'ok   ' if check.ok else 'WRONG'}  {check.name}  {check.given}  (expected by {by}: "
            f"{check.expected})"
        )
    if wrong := [check for check in checks if not check.ok]:
        fixes = "; ".join(
            f"delete {check.path} and run `segclip weights get {check.name}`" for check in wrong
        )
        raise WeightsCorrupt(
            f"{len(wrong)} of {len(checks)} files are not the expected ones: {fixes}"
        )


@app.command()
def path(name: str) -> None:
    """Print the path of a verified weight file, without downloading."""
    from .. import weights

    found = weights.find(name)
    if found is None:
        raise WeightsMissing(f"{name} is not on this machine; run `segclip weights get {name}`")
    typer.echo(found)


def _expand(names: list[str]) -> list[str]:
    from ..loading import PRESETS

    return [part for name in names for part in PRESETS.get(name, (name,))]
