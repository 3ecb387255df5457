"""Paint captioned scenes of flat shapes with exact masks, to try a recipe in minutes.

No fonts or photos are needed.

    python -m train.shapes runs/shapes --count 2500

Writes images/, captions.jsonl (the last 500 scenes are held out) and scenes.json (COCO format:
outlined regions, their names). A seed is a scene.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from pycocotools import mask as coco_mask

from segclip.files import atomic
from segclip.types import Array

from .engine import command, limits
from .engine.files import claim, write_image

SIZE = 96
HELD_OUT = 500
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 70, 220),
    "yellow": (235, 215, 50),
    "purple": (140, 60, 170),
    "orange": (240, 140, 30),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)


@dataclass(frozen=True, eq=False)
class Painted:
    """A scene.

    pixels: uint8 (S, S, 3). masks: the visible part of each object, bool (S, S). names: one per
    object.
    """

    pixels: Array
    masks: tuple[Array, ...]
    names: tuple[str, ...]
    caption: str


def paint(seed: int, *, objects: int = 2) -> Painted:
    """Paint the scene of ``seed``: different objects that do not touch, on a smooth background."""
    rng = np.random.default_rng([seed, 7])
    base = rng.uniform(90, 190, (3, 3, 3)).astype(np.float32)
    pixels = cv2.resize(base, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) + rng.normal(
        0, 6, (SIZE, SIZE, 3)
    )
    names = [str(name) for name in rng.choice(NAMES, objects, replace=False)]
    masks: list[Array] = []
    centres: list[Array] = []
    while len(masks) < objects:
        across = rng.uniform(24, 40)
        centre = rng.uniform(across / 2 + 1, SIZE - across / 2 - 1, 2)
        mask = _shape(names[len(masks)].split()[1], centre, across, rng.uniform(-15, 15))
        if any(
            (cv2.dilate(other.astype(np.uint8), np.ones((7, 7))) > 0)[mask].any() for other in masks
        ):
            continue
        shade = np.array(COLOURS[names[len(masks)].split()[0]]) * rng.uniform(0.85, 1.1)
        pixels[mask] = shade + rng.normal(0, 5, (int(mask.sum()), 3))
        masks.append(mask)
        centres.append(centre)
    return Painted(
        np.clip(pixels, 0, 255).astype(np.uint8),
        tuple(masks),
        tuple(names),
        _caption(names, centres),
    )


def _shape(kind: str, centre: Array, across: float, turn: float) -> Array:
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    at, radius = tuple(round(v) for v in centre), across / 2
    if kind in ("circle", "ring"):
        cv2.circle(canvas, at, round(radius), 1, -1)
        if kind == "ring":
            cv2.circle(canvas, at, round(radius * 0.55), 0, -1)
        return canvas.astype(bool)
    if kind == "cross":
        arm = 0.32
        outline = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
        outline += [(arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm), (-arm, -arm)]
        points = np.array(outline)
    else:
        corners, inner = {"square": (4, 1.0), "triangle": (3, 1.0), "star": (5, 0.42)}[kind]
        count = corners * (2 if inner < 1 else 1)
        angles = (
            np.arange(count) * 2 * np.pi / count
            - np.pi / 2
            + (np.pi / 4 if kind == "square" else 0)
        )
        length = np.where(np.arange(count) % 2, inner, 1.0) if inner < 1 else np.ones(count)
        points = np.stack([np.cos(angles), np.sin(angles)], 1) * length[:, None]
    angle = np.deg2rad(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    cv2.fillPoly(canvas, [np.rint(points @ rotation.T * radius + centre).astype(np.int32)], 1)
    return canvas.astype(bool)


def _caption(names: Sequence[str], centres: Sequence[Array]) -> str:
    if len(names) == 1:
        return f"a {names[0]}"
    dx, dy = centres[0] - centres[1]
    side = (
        ("right of" if dx > 0 else "left of")
        if abs(dx) > abs(dy)
        else ("below" if dy > 0 else "above")
    )
    return f"a {names[0]} {side} a {names[1]}"


def write(
    folder: Path, count: int, *, held_out: int = HELD_OUT, objects: int = 2, first: int = 0
) -> None:
    """Write the scenes of ``count`` seeds from ``first``.

    The last ``held_out`` of them are for validation.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    categories = [{"id": row + 1, "name": name} for row, name in enumerate(NAMES)]
    lines, images = [], []
    annotations: list[dict[str, Any]] = []
    for seed in range(first, first + count):
        scene = paint(seed, objects=objects)
        file = f"{seed:05d}.png"
        write_image(folder / "images" / file, scene.pixels)
        split = "val" if seed >= first + count - held_out else "train"
        lines.append(json.dumps({"image": file, "caption": scene.caption, "split": split}))
        images.append({"id": seed, "file_name": file, "height": SIZE, "width": SIZE})
        for mask, name in zip(scene.masks, scene.names, strict=True):
            code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            ys, xs = np.nonzero(mask)
            box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
            thing: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": seed,
                "iscrowd": 0,
                "askable": True,
            }
            thing |= {"category_id": NAMES.index(name) + 1, "area": int(mask.sum()), "bbox": box}
            thing["segmentation"] = {"size": [SIZE, SIZE], "counts": code["counts"].decode()}
            annotations.append(thing)
    table = {"images": images, "annotations": annotations, "categories": categories}
    atomic.write(folder / "scenes.json", json.dumps(table).encode())
    atomic.write(folder / "captions.jsonl", ("\n".join(lines) + "\n").encode())


def main(
    folder: Path,
    count: Annotated[int, typer.Option(help="Total number of scenes.")] = 2500,
    held_out: Annotated[
        int, typer.Option(help="Number of validation scenes among them, the last ones.")
    ] = HELD_OUT,
    first: Annotated[int, typer.Option(help="Seed of the first scene.")] = 0,
) -> None:
    """Paint captioned scenes."""
    limits.check(
        {
            "--count": (count, limits.COUNT),
            "--held-out": (held_out, limits.NONE_OR_MORE),
            "--first": (first, limits.SEED),
        }
    )
    claim(folder)
    write(folder, count, held_out=held_out, first=first)
    typer.echo(f"wrote {count} scenes to {folder}")


if __name__ == "__main__":
    command.run(main)
