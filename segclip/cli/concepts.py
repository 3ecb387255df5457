"""The ``segclip concepts`` commands: add, list, show and remove what examples teach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BadIndex, BadPrompt, NotWritable, UnknownName
from .options import ModelOptions
from .output import OutputOptions
from .parsing import grouped

if TYPE_CHECKING:
    from ..types import Array

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Teach concepts by example; their text is @NAME.",
)
_PLACES = "FILE, FILE@X,Y, FILE@X1,Y1,X2,Y2 or FILE@MASK.png"
_TILE = 160  # px


@dataclass(frozen=True)
class ConceptOptions:
    """The name of a concept, and its examples."""

    name: Annotated[str, typer.Argument(metavar="NAME", help="The concept; its text is @NAME.")]
    like: Annotated[
        list[str] | None,
        typer.Option("--like", metavar="EXAMPLE", help=f"Example: {_PLACES}; repeatable."),
    ] = None
    unlike: Annotated[
        list[str] | None,
        typer.Option("--unlike", metavar="EXAMPLE", help="Counter-example; repeatable."),
    ] = None


@app.command()
@grouped
def add(options: ConceptOptions, models: ModelOptions) -> None:
    """Make a concept of examples, in place of an earlier one of that name."""
    from ..ranking import concepts

    concepts.check_name(options.name)
    likes, unlikes = (
        [concepts.Example.parse(text) for text in given or ()]
        for given in (options.like, options.unlike)
    )
    if not likes:
        raise BadPrompt(f"give an example of {options.name!r}: --like {_PLACES}")
    concept = models.load(OutputOptions()).concept(options.name, likes, unlikes)
    typer.echo(f"wrote {concept.save()}")
    typer.echo(f"its text is {concept.text}, as in: segclip segment IMAGE {concept.text}")


@app.command("list")
def list_() -> None:
    """List the concepts: text, examples, counter-examples, encoder."""
    from ..ranking import concepts

    rows = [("text", "like", "unlike", "encoder")]
    for name in concepts.names():
        try:
            concept = concepts.find(name)
        except (BadIndex, UnknownName):  # of which `show` prints the reason
            rows.append((f"@{name}", "-", "-", "damaged"))
            continue
        rows.append(
            (concept.text, str(len(concept.likes)), str(len(concept.unlikes)), concept.encoder)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(map(str.ljust, row, widths)).rstrip())


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    out: Annotated[Path | None, typer.Option(help="Contact sheet of the examples, .png.")] = None,
) -> None:
    """Print the examples of a concept; with --out, draw them."""
    from ..ranking import concepts

    if out and out.suffix.lower() != ".png":
        raise BadPrompt(f"--out {out}: give the name of a .png file")
    concept = concepts.find(name.removeprefix(concepts.MARK))
    kinds = ["like"] * len(concept.likes) + ["unlike"] * len(concept.unlikes)
    typer.echo(f"{concept.text}, made with the encoder {concept.encoder}")
    for kind, given in zip(kinds, concept.given, strict=True):
        typer.echo(f"--{kind:6}  {given}")
    if out:
        typer.echo(f"wrote {_draw(concept.thumbnails, kinds, out)}")


@app.command()
def remove(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Remove a concept."""
    from ..ranking import concepts

    typer.echo(f"removed {concepts.remove(name.removeprefix(concepts.MARK))}")


def _draw(thumbnails: Array, kinds: Sequence[str], out: Path) -> Path:
    """Write a contact sheet. Raises NotWritable, also for a file that is there already."""
    from PIL import Image

    from ..drawing import contact_sheet
    from ..files import atomic

    if out.exists():
        raise NotWritable(f"{out} is there already; move it away, or name another file with --out")
    sheet = contact_sheet([Image.fromarray(each) for each in thumbnails], kinds, tile=_TILE)
    with atomic.replacing(out) as file:
        sheet.save(file, "PNG")
    return out
