"""Make the drawn scenes of samples/, and list the texts to try on them and on the photographs
there.

python -m train.release.samples samples --photos ../shared/coco-dev
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import typer

from ..engine import command
from ..engine.files import write_image
from ..scenes.compose import SceneConfig, compose
from ..scenes.glyphs import load_glyphs
from ..scenes.photos import load_photos


@dataclass(frozen=True)
class Sample:
    """Hold a sample image. name: of its file. texts: to try, the last of which is not there."""

    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Photo(Sample):
    """Hold a photograph that lies in the folder. credit: whose it is, and its licence."""

    credit: str


@dataclass(frozen=True)
class Drawing(Sample):
    """Hold what a scene is composed of."""

    seed: int
    objects: tuple[str, ...]
    photo_share: float = 0.0


PHOTOS = (
    Photo("cat.jpg", ("a cat", "a kitten", "a dog"), "Stefan van der Walt; CC0; as scikit-image "
                                                     "carries it"),
    Photo("coffee.jpg", ("a spoon", "a dog"),
          "Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0; as scikit-image carries it"),
)  # fmt: skip
DRAWINGS = (
    Drawing(
        "desk.png",
        ("red apple", "coffee", "pencil", "apple", "banana"),
        1_900_003,
        ("red apple", "hot beverage", "pencil", "open book", "potted plant", "green apple"),
    ),
    Drawing(
        "zoo.png",
        ("penguin", "parrot", "bicycle"),
        1_900_017,
        ("elephant", "giraffe face", "penguin", "gorilla", "parrot", "zebra face", "flamingo"),
        1.0,
    ),
)
SAMPLES: tuple[Sample, ...] = (*PHOTOS, *DRAWINGS)


def main(
    folder: Path,
    photos: Annotated[
        Path | None, typer.Option(help="COCO-format folder of photos for backgrounds.")
    ] = None,
) -> None:
    """Draw the scenes, and write a README of texts to try."""
    glyphs = load_glyphs()
    places = {glyph.name: row for row, glyph in enumerate(glyphs)}
    free = load_photos(photos, held_out=True, free=True)
    folder.mkdir(parents=True, exist_ok=True)
    for drawing in DRAWINGS:
        wanted = [places[name] for name in drawing.objects if name in places]
        config = SceneConfig(
            objects=(len(wanted), len(wanted)),
            across=(70, 170),
            photo_share=drawing.photo_share,
            crowding=0.02,
        )
        scene = compose(drawing.seed, glyphs, free, config, wanted=wanted)
        write_image(folder / drawing.name, scene.pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    credits = [f"- [{photo.name}]({photo.name}): {photo.credit}" for photo in PHOTOS]
    behind = [f"- {photo.credit}" for photo in free]
    lines = [
        "# Images to try",
        "",
        "| image | texts to try (the last is not there) |",
        "|---|---|",
        *map(_row, SAMPLES),
        "",
        "The photographs:",
        "",
        *credits,
        "",
        "The scenes are made by `python -m train.release.samples` of drawings of Noto Color Emoji "
        "(OFL 1.1);",
        "the photos behind one of them come from these, cropped:",
        "",
        *behind,
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), "utf-8")
    typer.echo(f"{len(DRAWINGS)} scenes in {folder}")


def _row(sample: Sample) -> str:
    return f"| [{sample.name}]({sample.name}) | {', '.join(f'`{text}`' for text in sample.texts)} |"


if __name__ == "__main__":
    command.run(main)
