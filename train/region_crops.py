"""Cut training crops out of scenes and photos once, as serving cuts them, and keep them in shards.

python -m train.region_crops runs/crops --photos ../shared/coco-dev --caltech ../shared/caltech-101
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from segclip import atomic, coco, images
from segclip.crops import View, cut
from segclip.types import Array, Image, Masks

from . import command, limits
from .glyphs import Glyph, load_glyphs
from .photos import Photo, is_held_out, largest_first, load_photos
from .scenes import SceneConfig, compose

STORED = 96  # px of a stored crop, at CONTEXT
CONTEXT = 1.5
SHARD = 2048
DENSE = SceneConfig(objects=(9, 18), across=(26, 200), crowding=0.5)


@dataclass(frozen=True)
class Class:
    """Name one thing a crop can be: every text that means it, its name first, and the word for its colour or ""."""

    texts: tuple[str, ...]
    colour: str = ""


def drawn_classes(glyphs: Sequence[Glyph]) -> list[Class]:
    """Name the drawn objects."""
    return [Class(glyph.texts, glyph.colour) for glyph in glyphs]


def photo_classes(names: Sequence[str]) -> list[Class]:
    """Name photographed things by their folder or category."""
    return [Class((name.replace("_", " ").lower(),)) for name in names]


def scene_crops(seed: int, glyphs: Sequence[Glyph], photos: Sequence[Photo]) -> Iterator[tuple[Array, Array, int]]:
    """Cut a scene's objects and two pieces of background: (uint8 (S, S, 3), mask uint8 (S, S), glyph or -1)."""
    scene = compose(seed, glyphs, photos, DENSE)
    kept = np.flatnonzero((scene.visible >= 0.3) & (scene.masks.areas >= 150))
    image = Image(scene.pixels)
    yield from _with_masks(image, scene.masks[kept], [scene.glyphs[row] for row in kept])
    rng = np.random.default_rng([seed, 2])
    blobs = [_blob(rng, scene.layers) for _ in range(2)]
    yield from _with_masks(image, Masks.from_windows([blob for blob in blobs if blob], scene.masks.size), [-1] * 2)


def _blob(rng: np.random.Generator, layers: Array) -> tuple[int, int, Array] | None:
    """Find an ellipse of background: nothing drawn and no labelled thing of the photo in it."""
    height, width = layers.shape
    for _ in range(8):
        w, h = (int(v) for v in np.exp(rng.uniform(np.log(20), np.log(180), 2)))
        x, y = int(rng.integers(width - w)), int(rng.integers(height - h))
        bitmap = np.zeros((h, w), np.uint8)
        cv2.ellipse(bitmap, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, 1, -1)
        if (layers[y : y + h, x : x + w][bitmap > 0] == -1).mean() > 0.97:
            return x, y, bitmap.astype(bool)
    return None


def _with_masks(image: Image, masks: Masks, labels: Sequence[int]) -> Iterator[tuple[Array, Array, int]]:
    pixels = cut(image, masks, View(CONTEXT, "keep"), STORED)
    for row in range(len(masks)):
        canvas = Image(np.repeat(masks.full(row)[..., None].astype(np.uint8) * 255, 3, axis=2))
        inside = cut(canvas, masks[[row]], View(CONTEXT, "black"), STORED)[0, ..., 0]
        yield pixels[row], inside, labels[row]


def photo_crops(photos: Sequence[Photo], categories: Sequence[Sequence[int]]) -> Iterator[tuple[Array, Array, int]]:
    """Cut the labelled things of photos; the label is the category's place."""
    for photo, kinds in zip(photos, categories, strict=True):
        masks = Masks.from_windows(
            [(0, 0, photo.labels == number) for number in range(1, len(kinds) + 1)], photo.labels.shape
        )
        kept = np.flatnonzero(masks.areas >= 400)
        yield from _with_masks(Image(photo.pixels), masks[kept], [kinds[int(row)] for row in kept])


def caltech_files(folder: Path, *, held_out: bool) -> list[tuple[Path, int]]:
    """List the photos of a tree of class folders: every fifth of each class when ``held_out``, else the others."""
    files = []
    for label, kind in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for row, file in enumerate(sorted(kind.glob("*.jpg"))):
            if is_held_out(row) == held_out:
                files.append((file, label))
    return files


def caltech_crops(files: Sequence[tuple[Path, int]]) -> Iterator[tuple[Array, Array, int]]:
    """Show whole photos as regions."""
    for file, label in files:
        image = images.load(file)
        whole = Masks.from_windows([(0, 0, np.ones(image.size, bool))], image.size)
        yield from _with_masks(image, whole, [label])


def write_shards(folder: Path, name: str, crops: Iterator[tuple[Array, Array, int]]) -> int:
    """Write crops in shards NAME-NNN.npz: pixels and mask as one RGBA uint8 array, and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[Array, Array, int]] = []
    count = 0

    def flush() -> None:
        rgba = np.stack([np.dstack([pixels, mask]) for pixels, mask, _ in rows])
        with atomic.replacing(folder / f"{name}-{count // SHARD:03d}.npz") as file:
            np.savez(file, rgba=rgba, labels=np.array([label for *_, label in rows], np.int16))

    for row in crops:
        rows.append(row)
        if len(rows) == SHARD:
            flush()
            count, rows = count + SHARD, []
    if rows:
        flush()
    return count + len(rows)


class CropStore:
    """Hold all stored crops of one kind, by class; more shards may appear while training reads."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.shards: list[tuple[Array, Array]] = []
        self.seen: set[Path] = set()
        self.reload()

    def reload(self) -> None:
        """Read the shards that were not there before."""
        for path in sorted(self.folder.glob(f"{self.name}-[0-9][0-9][0-9].npz")):
            if path not in self.seen:
                data = np.load(path)
                self.shards.append((data["rgba"], data["labels"]))
                self.seen.add(path)
        self.where = np.concatenate(
            [
                np.stack([np.full(len(labels), shard), np.arange(len(labels))], 1)
                for shard, (_, labels) in enumerate(self.shards)
            ]
        )
        self.labels = np.concatenate([labels for _, labels in self.shards])

    def order(self, rng: np.random.Generator, *, things: bool) -> Iterator[int]:
        """Go through the crops without end in random order, only the labelled ones or only the background."""
        rows = np.flatnonzero((self.labels >= 0) == things)
        while True:
            yield from rng.permutation(rows)

    def __getitem__(self, row: int) -> tuple[Array, int]:
        shard, index = self.where[row]
        return self.shards[shard][0][index], int(self.labels[row])


def photo_kinds(folder: Path) -> tuple[list[str], list[list[int]]]:
    """List the category names of a COCO-format folder, and for each training photo its things' categories."""
    table = coco.read(folder / "instances.json")
    place = {key: index for index, key in enumerate(table.categories)}
    kept = [image for row, image in enumerate(table.images) if not is_held_out(row)]
    kinds = [[place[thing.category] for thing in largest_first(table.things[image.key])] for image in kept]
    return [category.name for category in table.categories.values()], kinds


def main(
    folder: Path,
    photos: Annotated[Path | None, typer.Option(help="COCO-format folder of photos.")] = None,
    caltech: Annotated[Path | None, typer.Option(help="Folder tree of class folders.")] = None,
    scenes: Annotated[int, typer.Option(help="Scenes to cut.")] = 12_000,
    first: Annotated[int, typer.Option(help="The first scene's seed.")] = 500_000,
) -> None:
    """Cut and store training crops."""
    limits.check({"--scenes": (scenes, limits.COUNT), "--first": (first, limits.SEED)})
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    glyphs, behind = load_glyphs(), load_photos(photos, held_out=False)
    classes, offsets = drawn_classes(glyphs), {"drawn": 0}
    if caltech:
        offsets["caltech"] = len(classes)
        classes += photo_classes(sorted(path.name for path in caltech.iterdir() if path.is_dir()))
        write_shards(folder, "caltech", caltech_crops(caltech_files(caltech, held_out=False)))
    if photos:
        offsets["photo"] = len(classes)
        names, kinds = photo_kinds(photos)
        classes += photo_classes(names)
        write_shards(folder, "photo", photo_crops(behind, kinds))
    rows: list[dict[str, Any]] = [{"texts": kind.texts, "colour": kind.colour} for kind in classes]
    atomic.write(folder / "classes.json", json.dumps({"classes": rows, "offsets": offsets}).encode())
    cutting = (crop for seed in range(first, first + scenes) for crop in scene_crops(seed, glyphs, behind))
    typer.echo(f"{write_shards(folder, 'drawn', cutting)} crops of {scenes} scenes in {folder}")


if __name__ == "__main__":
    command.run(main)
