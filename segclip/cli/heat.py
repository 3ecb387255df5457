"""The ``segclip heat`` command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from .inputs import check_image, local_path, note_missing_quotes
from .options import Offline
from .output import OUT


@dataclass(frozen=True)
class HeatOptions:
    """The image, the texts and the encoder of heat maps."""

    image: Annotated[
        Path,
        typer.Argument(metavar="IMAGE", help="The image.", show_default=False, parser=local_path),
    ]
    texts: Annotated[
        list[str], typer.Argument(metavar="TEXT...", help="What to find.", show_default=False)
    ]
    encoder: Annotated[
        str,
        typer.Option(
            help="An encoder with a patch head, such as file:RUN of train.pacl.", show_default=False
        ),
    ]
    out: Annotated[Path, typer.Option(help="Folder for the heat maps.")] = OUT
    offline: Offline = False


def run(query: HeatOptions) -> None:
    """Draw a heat map of each text, then the best text of each pixel."""
    from .. import drawing, images, loading, question
    from ..files import outputs
    from ..scoring import heat

    check_image("heat", query.image, query.texts)
    note_missing_quotes(query.texts)
    texts = question.unique(query.texts)
    image = images.load(query.image)
    encoder = loading.load_encoder(query.encoder, offline=query.offline)
    maps = heat.heat_maps(encoder, image, texts)
    panels = [drawing.heat(image, one) for one in maps]
    panels.append(drawing.labels(image, heat.label_pixels(encoder, image, texts)))
    captions = [f"{text}: up to {one.max():.2f}" for text, one in zip(texts, maps, strict=True)]
    sheet = drawing.contact_sheet(panels, [*captions, "best text per pixel"], columns=3)

    def write(folder: Path) -> list[Path]:
        target = folder / f"{outputs.shortened(query.image.stem)}.heat.png"
        sheet.save(target)
        return [target]

    for path in outputs.renew(query.out, f"heat {query.image.stem}", write):
        typer.echo(f"wrote {path}")
