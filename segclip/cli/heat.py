"""The ``segclip heat`` command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from .options import OUT


@dataclass(frozen=True)
class Heating:
    """What is looked for, and with what."""

    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The picture.", show_default=False)]
    texts: Annotated[
        list[str], typer.Argument(metavar="TEXT...", help="What to find.", show_default=False)
    ]
    encoder: Annotated[
        str,
        typer.Option(
            help="An encoder with a patch head, such as file:RUN of train.pacl.", show_default=False
        ),
    ]
    out: Annotated[Path, typer.Option(help="Folder of the picture.")] = OUT
    offline: Annotated[bool, typer.Option("--offline", help="Use no network at all.")] = False


def run(heating: Heating) -> None:
    """Draw a heat map of each text, and last which text each pixel shows."""
    from .. import drawing, images, loading, question
    from ..files import outputs
    from ..scoring import heat

    texts = question.unique(heating.texts)
    image = images.load(heating.image)
    encoder = loading.load_encoder(heating.encoder, options=loading.LoadOptions(heating.offline))
    maps = heat.heat_maps(encoder, image, texts)
    pictures = [drawing.heat(image, warm) for warm in maps]
    pictures.append(drawing.labels(image, heat.label_pixels(encoder, image, texts)))
    shown = [f"{text}: up to {warm.max():.2f}" for text, warm in zip(texts, maps, strict=True)]
    sheet = drawing.contact_sheet(pictures, [*shown, "all together"], columns=3)

    def write(folder: Path) -> list[Path]:
        target = folder / f"{outputs.shortened(heating.image.stem)}.heat.png"
        sheet.save(target)
        return [target]

    for path in outputs.renew(heating.out, f"heat {heating.image.stem}", write):
        typer.echo(f"wrote {path}")
