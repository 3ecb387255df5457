"""Make the pictures of samples/ and the texts to try on them.

python -m train.samples samples --photos ../shared/coco-dev
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import typer

from . import command
from .files import write_image
from .glyphs import load_glyphs
from .photos import load_photos
from .scenes import Scene, SceneConfig, compose, phrases


@dataclass(frozen=True)
class Sample:
    """Say what a sample shows."""

    name: str
    seed: int
    objects: tuple[str, ...]
    texts: tuple[str, ...]
    photo_share: float = 0.0


SAMPLES = (
    Sample("desk", 1_900_003,
           ("red apple", "hot beverage", "pencil", "open book", "potted plant", "green apple"),
           ("red apple", "coffee", "pencil", "apple", "banana")),
    Sample("pond", 1_900_004, ("duck", "frog face", "lotus", "turtle", "dragonfly", "fish", "crocodile"),
           ("duck", "turtle", "fish", "elephant")),
    Sample("street", 1_900_006, ("automobile", "bicycle", "police car", "fire engine", "dog", "traffic cone", "bus"),
           ("bicycle", "car", "fire engine", "dog", "airplane")),
    Sample("picnic", 1_900_011,
           ("watermelon", "hamburger", "slice of pizza", "strawberry", "cup with straw", "basket", "cheese wedge"),
           ("hamburger", "pizza", "strawberry", "umbrella"), 1.0),
    Sample("zoo", 1_900_017, ("elephant", "giraffe face", "penguin", "gorilla", "parrot", "zebra face", "flamingo"),
           ("elephant", "penguin", "parrot", "bicycle"), 1.0),
    Sample("toys", 1_900_021,
           ("teddy bear", "balloon", "kite", "rocket", "robot face", "guitar", "soccer ball", "balloon"),
           ("teddy bear", "balloon", "rocket", "violin"), 1.0),
)  # fmt: skip


def main(
    folder: Path,
    photos: Annotated[Path | None, typer.Option(help="COCO-format folder of photos for backgrounds.")] = None,
) -> None:
    """Write every sample and a README of texts to try."""
    glyphs = load_glyphs()
    places = {glyph.name: row for row, glyph in enumerate(glyphs)}
    free = load_photos(photos, held_out=True, free=True)
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["| picture | texts to try (the last is not there) | what stands where |", "|---|---|---|"]
    for sample in SAMPLES:
        wanted = [places[name] for name in sample.objects if name in places]
        config = SceneConfig(
            objects=(len(wanted), len(wanted)), across=(70, 170), photo_share=sample.photo_share, crowding=0.02
        )
        scene = compose(sample.seed, glyphs, free, config, wanted=wanted)
        path = folder / f"{sample.name}.png"
        write_image(path, scene.pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
        rows.append(_row(path, sample, [phrases(scene, row, glyphs) for row in range(len(scene.glyphs))], scene))
    credit = "\n".join(f"- {photo.credit}" for photo in free)
    (folder / "README.md").write_text(
        "# Pictures to try\n\nMade by `python -m train.samples` of drawings of Noto Color Emoji (OFL 1.1).\n\n"
        + "\n".join(rows) + f"\n\nPhotos behind some of them come from these, cropped:\n\n{credit}\n", "utf-8"
    )  # fmt: skip
    typer.echo(f"{len(SAMPLES)} pictures in {folder}")


def _row(path: Path, sample: Sample, said: list[list[str]], scene: Scene) -> str:
    where = next((phrase for phrase_list in said for phrase in phrase_list[-1:]), "")
    return f"| [{path.name}]({path.name}) | {', '.join(f'`{text}`' for text in sample.texts)} | {where} |"


if __name__ == "__main__":
    command.run(main)
