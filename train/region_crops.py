"""Cut training crops out of scenes and photos, as serving does, and store them in shards.

    python -m train.region_crops runs/crops --data ../shared

A crop is stored with more context than serving uses, so that training can crop it again in many
ways.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from segclip import images
from segclip.files import atomic, coco
from segclip.loading import load_proposer
from segclip.scoring.crops import View, cut
from segclip.types import Array, Image, Masks

from .captions.class_names import imagenet_classes, plain_classes
from .engine import command, limits
from .engine.options import OnlySources
from .regions.candidates import judged
from .regions.crop_store import BACKGROUND, CONTEXT, STORED, UNLABELLED, Class, Crop, Shards
from .regions.photo_lists import caltech_files, captions, imagenet_files
from .scenes.compose import Drawable, Scene, SceneConfig, compose
from .scenes.cutouts import PHOTOGRAPHIC, load_cutouts, photo_cutouts
from .scenes.glyphs import Glyph, load_glyphs
from .scenes.photos import Photo, is_held_out, load_photos

DENSE = SceneConfig(objects=(9, 18), across=(26, 200), crowding=0.5)
PASTED = replace(PHOTOGRAPHIC, size=(480, 640), objects=(4, 10))
MOST_OF_A_NAME = {"clothes": 120, "food": 50, "bottles": 300}  # maximum crops per name of a source
MOST_OF_A_CLASS = 90  # maximum photos per class of Caltech-101
VALIDATION = 1_000_000  # seeds from here on are never trained on


def region_crops(image: Image, masks: Masks, labels: Sequence[int]) -> Iterator[Crop]:
    """Cut regions with their surroundings, stretched to a square."""
    for row, label in enumerate(labels):
        x1, y1, x2, y2 = (int(v) for v in masks.boxes[row])
        side = min(STORED, max(48, round(max(x2 - x1, y2 - y1) * CONTEXT)))
        view = View(CONTEXT, "keep", stretch=True)
        pixels = cut(image, masks[[row]], view, side)[0]
        canvas = Image(np.repeat(masks.full(row)[..., None].astype(np.uint8) * 255, 3, axis=2))
        inside = cut(canvas, masks[[row]], replace(view, fill="black"), side)[0, ..., 0]
        yield Crop(pixels, inside, label)


def whole_crop(pixels: Array, label: int, alpha: Array | None = None) -> Crop:
    """Store a whole photo as a crop; alpha: mask of its object."""
    side = min(STORED, max(pixels.shape[:2]))
    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    inside = np.full((side, side), 255, np.uint8)
    if alpha is not None:
        inside = cv2.resize(alpha, (side, side), interpolation=cv2.INTER_AREA)
    return Crop(small, inside, label, 1.0)


def scene_crops(scene: Scene, seed: int, labels: Sequence[int]) -> Iterator[Crop]:
    """Cut a scene's objects, with their ``labels``, and two pieces of background."""
    kept = [int(row) for row in np.flatnonzero((scene.visible >= 0.3) & (scene.masks.areas >= 150))]
    image = Image(scene.pixels)
    yield from region_crops(image, scene.masks[kept], [labels[row] for row in kept])
    rng = np.random.default_rng([seed, 2])
    blobs = [blob for blob in (_blob(rng, scene.layers) for _ in range(2)) if blob]
    yield from region_crops(
        image, Masks.from_windows(blobs, scene.masks.size), [BACKGROUND] * len(blobs)
    )


def _blob(rng: np.random.Generator, layers: Array) -> tuple[int, int, Array] | None:
    """Find an ellipse of background, without drawn or labelled objects."""
    height, width = layers.shape
    for _ in range(8):
        w, h = (int(v) for v in np.exp(rng.uniform(np.log(20), np.log(180), 2)))
        x, y = int(rng.integers(width - w)), int(rng.integers(height - h))
        bitmap = np.zeros((h, w), np.uint8)
        cv2.ellipse(bitmap, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, 1, -1)
        if (layers[y : y + h, x : x + w][bitmap > 0] == -1).mean() > 0.97:
            return x, y, bitmap.astype(bool)
    return None


def photo_crops(photos: Sequence[Photo], labels: dict[str, int]) -> Iterator[Crop]:
    """Cut the labelled objects of photos, limited per name for sources with few classes."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for photo in photos:
        rows = range(1, len(photo.names) + 1)
        masks = Masks.from_windows(
            [(0, 0, photo.labels == row) for row in rows], photo.labels.shape
        )
        kept = []
        for row in (int(found) for found in np.flatnonzero(masks.areas >= 300)):
            key = photo.source, photo.names[row]
            counts[key] += 1
            if counts[key] <= MOST_OF_A_NAME.get(photo.source, 10**6):
                kept.append(row)
        yield from region_crops(
            Image(photo.pixels), masks[kept], [labels[photo.names[row]] for row in kept]
        )


def random_crops(files: Iterable[Path], count: int, seed: int) -> Iterator[Crop]:
    """Cut random boxes out of photos, for a teacher to label."""
    rng = np.random.default_rng(seed)
    for file in files:
        image = images.load(file)
        height, width = image.size
        for _ in range(count):
            sides = np.exp(rng.uniform(np.log(0.15), np.log(0.9))) * np.exp(
                rng.uniform(-0.4, 0.4, 2)
            )
            h, w = (
                max(16, int(min(1, s) * full))
                for s, full in zip(sides, (height, width), strict=True)
            )
            y, x = int(rng.integers(max(1, height - h))), int(rng.integers(max(1, width - w)))
            bitmap = np.zeros((h, w), np.uint8)
            cv2.ellipse(bitmap, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, 1, -1)
            masks = Masks.from_windows([(x, y, bitmap.astype(bool))], image.size)
            yield from region_crops(image, masks, [UNLABELLED])


def class_crops(files: Sequence[tuple[Path, int]], masks: Path, offset: int) -> Iterator[Crop]:
    """Store whole labelled photos, and their object alone where it has a clean mask."""
    counts: dict[int, int] = defaultdict(int)
    clean = _clean_masks(masks)
    for file, label in files:
        counts[label] += 1
        if counts[label] > MOST_OF_A_CLASS:
            continue
        image = images.load(file)
        yield whole_crop(image.pixels, label + offset)
        mask = clean.get(f"{file.stem}:{file.parent.name}")
        if mask is None:
            continue
        alpha = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
        alpha = cv2.resize(alpha, image.size[::-1], interpolation=cv2.INTER_AREA)
        found = Masks.from_dense((alpha > 127)[None], image.size)
        yield from region_crops(image, found, [label + offset])


def _clean_masks(folder: Path) -> dict[str, Path]:
    rows = csv.DictReader((folder / "masks.csv").read_text("utf-8").splitlines())
    kept = [
        folder / row["mask"]
        for row in rows
        if float(row["soft"]) < 0.35 and 0.03 < float(row["share"]) < 0.9
    ]
    return {f"{path.stem}:{path.parent.name}": path for path in kept}


@dataclass(frozen=True, eq=False)
class Sources:
    """Data sets that crops are cut from, the training part or the held-out one."""

    data: Path
    held_out: bool
    glyphs: list[Glyph]
    coco: list[Photo]
    photos: list[Photo]
    classes: list[Class]
    offsets: dict[str, int]

    @classmethod
    def load(cls, data: Path, *, held_out: bool) -> Sources:
        """Read the data sets and list every class."""
        glyphs = load_glyphs()
        coco = load_photos(data / "coco-dev", held_out=held_out)
        photos = load_photos(data / "photos", held_out=held_out, garments=True)
        names = sorted(
            {name for folder in ("coco-dev", "photos") for name in _categories(data / folder)}
        )
        kinds = sorted(path.name for path in (data / "caltech-101").iterdir() if path.is_dir())
        groups = {
            "drawn": [Class(glyph.texts, glyph.colour, group="drawn") for glyph in glyphs],
            "photo": plain_classes(names, "photo"),
            "caltech": plain_classes(kinds, "caltech"),
            "imagenet": imagenet_classes(data / "imagenet-sample"),
            "caption": [
                Class((text,), group="caption")
                for _, text in captions(data / "flickr8k-1000", held_out=held_out)
            ],
        }
        classes: list[Class] = []
        offsets = {}
        for group, rows in groups.items():
            offsets[group] = len(classes)
            classes += rows
        return cls(data, held_out, glyphs, coco, photos, classes, offsets)

    def crops(self, name: str, count: int) -> Iterator[Crop]:
        """Cut the crops of one source; count: of scenes."""
        data, start = self.data, self.offsets
        if name in ("drawn", "pasted"):
            return self._scenes(name, count)
        if name == "photo":
            return photo_crops([*self.coco, *self.photos], self._photo_labels())
        if name == "proposed":
            return self._proposed()
        if name == "caltech":
            files = caltech_files(data / "caltech-101", held_out=self.held_out)
            return class_crops(files, data / "foreground", start["caltech"])
        if name == "imagenet":
            files = imagenet_files(data / "imagenet-sample", held_out=self.held_out)
            return class_crops(files, data / "foreground", start["imagenet"])
        if name == "caption":
            rows = captions(data / "flickr8k-1000", held_out=self.held_out)
            return (
                whole_crop(images.load(f).pixels, start["caption"] + row)
                for row, (f, _) in enumerate(rows)
            )
        return self._unlabelled()

    def _photo_labels(self) -> dict[str, int]:
        return {
            k.texts[0]: self.offsets["photo"] + row for row, k in enumerate(self._group("photo"))
        }

    def _proposed(self) -> Iterator[Crop]:
        photos = [*self.coco, *(photo for photo in self.photos if photo.source == "coco")]
        for image, masks, labels in judged(
            load_proposer("mini-fastsam"), photos, self._photo_labels(), 5
        ):
            yield from region_crops(image, masks, labels)

    def _group(self, name: str) -> list[Class]:
        return [kind for kind in self.classes if kind.group == name]

    def _scenes(self, name: str, count: int) -> Iterator[Crop]:
        first = 530_000 + (VALIDATION if self.held_out else 0)
        things: Sequence[Drawable] = self.glyphs
        labels, config = list(range(len(things))), DENSE
        if name == "pasted":
            cutouts = load_cutouts(self.data / "foreground", self.data, held_out=self.held_out)
            cutouts += photo_cutouts([*self.coco, *(p for p in self.photos if p.source == "coco")])
            known = {
                kind.texts[0]: row for row, kind in enumerate(self.classes) if kind.group != "drawn"
            }
            cutouts = [
                cutout for cutout in cutouts if cutout.name.replace("_", " ").lower() in known
            ]
            labels = [known[cutout.name.replace("_", " ").lower()] for cutout in cutouts]
            things, config = cutouts, PASTED
        for seed in range(first, first + count):
            scene = compose(seed, things, self.coco, config)
            yield from scene_crops(scene, seed, [labels[row] for row in scene.glyphs])

    def _unlabelled(self) -> Iterator[Crop]:
        data = self.data
        yield from random_crops(
            (file for file, _ in captions(data / "flickr8k-1000", held_out=False)), 5, 1
        )
        yield from random_crops(
            (f for f, _ in imagenet_files(data / "imagenet-sample", held_out=False)), 3, 2
        )
        files = sorted((data / "coco-dev" / "images").glob("*.jpg"))
        kept = [file for row, file in enumerate(files) if not is_held_out(row)]
        yield from random_crops(kept, 8, 3)
        yield from random_crops(
            (f for f, _ in caltech_files(data / "caltech-101", held_out=False)[::4]), 1, 4
        )


def _categories(folder: Path) -> list[str]:
    return [
        category.name.lower()
        for category in coco.read(folder / "instances.json").categories.values()
    ]


def main(
    folder: Path,
    data: Annotated[
        Path, typer.Option(help="Folder of the data sets: coco-dev, photos, caltech-101 and so on.")
    ],
    scenes: Annotated[int, typer.Option(help="Number of drawn scenes.")] = 3_000,
    pasted: Annotated[int, typer.Option(help="Number of scenes of pasted cut-outs.")] = 1_500,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Use the held-out part of the data.")
    ] = False,
    only: OnlySources = "",
) -> None:
    """Cut and store training crops."""
    limits.check({"--scenes": (scenes, limits.COUNT), "--pasted": (pasted, limits.COUNT)})
    cv2.setNumThreads(1)
    sources = Sources.load(data, held_out=held_out)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"texts": k.texts, "colour": k.colour, "synset": k.synset, "group": k.group}
        for k in sources.classes
    ]
    atomic.write(
        folder / "classes.json", json.dumps({"classes": rows, "offsets": sources.offsets}).encode()
    )
    names = ["photo", "imagenet", "caltech", "caption", "unlabelled", "pasted", "drawn", "proposed"]
    for name in only.split(",") if only else names:
        if held_out and name in ("unlabelled", "proposed"):
            continue
        count = pasted if name == "pasted" else scenes
        typer.echo(f"{name}: {Shards(folder, name).write(sources.crops(name, count))} crops")


if __name__ == "__main__":
    command.run(main)
