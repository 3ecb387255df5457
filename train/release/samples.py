"""Draw the scenes of samples/, and list texts to try on them and on its photographs.

python -m train.release.samples samples --photos ../shared/coco-dev
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import typer

from ..engine import command
from ..engine.files import write_image
from ..engine.options import BackgroundPhotos
from ..scenes.compose import SceneConfig, compose
from ..scenes.glyphs import load_glyphs
from ..scenes.photos import load_photos


@dataclass(frozen=True)
class DemoSample:
    """A sample image. name: of its file. texts: to try; the last one is not in the image."""

    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class SamplePhoto(DemoSample):
    """A photograph of the folder. credit: its author and licence."""

    credit: str


@dataclass(frozen=True)
class Drawing(DemoSample):
    """A sample that is a composed scene."""

    seed: int
    objects: tuple[str, ...]
    photo_share: float = 0.0


PHOTOS = (
    SamplePhoto(
        "cat.jpg",
        ("a cat", "a kitten", "a dog"),
        "Stefan van der Walt; CC0; from scikit-image",
    ),
    SamplePhoto(
        "coffee.jpg",
        ("a spoon", "a dog"),
        "Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0; from scikit-image",
    ),
)
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
SAMPLES: tuple[DemoSample, ...] = (*PHOTOS, *DRAWINGS)


def main(
    folder: Path,
    photos: BackgroundPhotos = None,
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
        "| image | texts to try (the last is absent) |",
        "|---|---|",
        *map(_row, SAMPLES),
        "",
        "The photographs:",
        "",
        *credits,
        "",
        (
            "The scenes are composed by `python -m train.release.samples` from drawings of "
            "Noto Color Emoji"
        ),
        "(OFL 1.1); the background photos of one of them are crops of these:",
        "",
        *behind,
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), "utf-8")
    typer.echo(f"{len(DRAWINGS)} scenes in {folder}")


def _row(sample: DemoSample) -> str:
    return f"| [{sample.name}]({sample.name}) | {', '.join(f'`{text}`' for text in sample.texts)} |"


if __name__ == "__main__":
    command.run(main)
