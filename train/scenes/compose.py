"""Compose labelled scenes of drawn objects on procedural and photo backgrounds.

Scenes come with exact masks, names and phrases. They are deterministic: a seed is a scene. Seeds
from VALIDATION_SEED up are for validation and are never trained on.

    python -m train.scenes.compose tests/data/scenes --count 60 --photos ../shared/coco-dev \
        --free --jpeg
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import cv2
import numpy as np
import typer
from pycocotools import mask as coco_mask

from segclip import images
from segclip.errors import BadPrompt
from segclip.files import atomic
from segclip.types import Array, Masks

from ..engine import command, limits
from ..engine.files import claim, write_image
from .glyphs import Glyph, load_glyphs, meanings
from .photos import Photo, load_photos

VALIDATION_SEED = 1_000_000
MIN_ACROSS = 32  # px; smaller objects are drawn but not queried
MIN_VISIBLE = 1 / 3


class Drawable(Protocol):
    """An object to paste: a drawing, or a cut-out of a photo."""

    @property
    def pixels(self) -> Array:
        """Return float32 (h, w, 4) RGBA in [0, 1], colour premultiplied."""


@dataclass(frozen=True)
class SceneConfig:
    """Distribution of scenes.

    size: (H, W). across: an object's longer side, px. every: 8 uses only each 8th drawing.
    """

    size: tuple[int, int] = (480, 640)
    objects: tuple[int, int] = (3, 12)
    across: tuple[float, float] = (24, 200)
    photo_share: float = 0.6
    repeat_share: float = 0.08  # share of objects that repeat an earlier one
    crowding: float = 0.4  # share of another object that one may hide, mostly
    every: int = 1
    upright: bool = False  # objects are tilted only slightly, as in photos
    blended: float = 0.0  # share of objects whose lighting is adapted to their surroundings


@dataclass(frozen=True, eq=False)
class Scene:
    """A scene with N objects.

    pixels: uint8 (H, W, 3) RGB. masks: the visible part of each drawn object. layers: int16 (H, W),
    the drawn object on top at each pixel; -1 background, -1 - k object k of the photo behind.
    glyphs: N indices. visible: (N,) visible share of the object. across: (N,) longer side of the
    whole object, px.
    """

    pixels: Array
    layers: Array
    masks: Masks
    glyphs: tuple[int, ...]
    visible: Array
    across: Array

    @property
    def askable(self) -> Array:
        """Return which objects are large and visible enough to be queried: bool (N,)."""
        return (self.across >= MIN_ACROSS) & (self.visible >= MIN_VISIBLE)


def compose(
    seed: int,
    glyphs: Sequence[Drawable],
    photos: Sequence[Photo],
    config: SceneConfig = SceneConfig(),
    *,
    wanted: Sequence[int] = (),
) -> Scene:
    """Compose the scene of ``seed``; ``wanted`` glyphs come first, in this order."""
    rng = np.random.default_rng(seed)
    canvas, layers = background(rng, photos, config)
    chosen: list[int] = []
    full: list[int] = []
    sizes: list[float] = []
    for _ in range(int(rng.integers(config.objects[0], config.objects[1] + 1))):
        repeat = bool(chosen) and rng.random() < config.repeat_share
        index = chosen[int(rng.integers(len(chosen)))] if repeat else int(rng.integers(len(glyphs)))
        index -= index % config.every
        index = wanted[len(chosen)] if len(chosen) < len(wanted) else index
        across = float(np.exp(rng.uniform(*np.log(config.across))))
        patch = _render(rng, glyphs[index].pixels, across, upright=config.upright)
        corner = _place(rng, patch, layers, full, config)
        if corner is None:
            continue
        if config.blended and rng.random() < config.blended:
            patch = _blend(rng, canvas, patch, corner)
        _paste(rng, canvas, layers, patch, corner, len(chosen))
        chosen.append(index)
        full.append(int((patch[..., 3] > 0.5).sum()))
        sizes.append(across)
    pixels = camera(rng, canvas)
    masks = Masks.from_windows([(0, 0, layers == row) for row in range(len(chosen))], config.size)
    visible = masks.areas / np.maximum(full, 1)
    return Scene(pixels, layers, masks, tuple(chosen), visible, np.asarray(sizes))


def background(
    rng: np.random.Generator, photos: Sequence[Photo], config: SceneConfig
) -> tuple[Array, Array]:
    """Create a background, a random part of a photo or a procedural one.

    Returns float32 (H, W, 3) in [0, 1] and its layers.
    """
    height, width = config.size
    if photos and rng.random() < config.photo_share:
        photo = photos[int(rng.integers(len(photos)))]
        full_h, full_w = photo.labels.shape
        scale = max(height / full_h, width / full_w) * rng.uniform(1.0, 1.6)
        part_h, part_w = min(int(height / scale), full_h), min(int(width / scale), full_w)
        y, x = int(rng.integers(full_h - part_h + 1)), int(rng.integers(full_w - part_w + 1))
        step = -1 if rng.random() < 0.5 else 1
        pixels, labels = (
            a[y : y + part_h, x : x + part_w][:, ::step].copy()
            for a in (photo.pixels, photo.labels)
        )
        layers = -1 - cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
        return cv2.resize(pixels, (width, height)).astype(np.float32) / 255, layers
    cells = int(rng.integers(1, 7)), int(rng.integers(1, 7)), 3
    base = cv2.resize(
        rng.uniform(0, 1, cells).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    if rng.random() < 0.5:
        base = base + _texture(rng, height, width)[..., None] * rng.uniform(0.05, 0.3)
    return np.clip(base, 0, 1), np.full(config.size, -1, np.int16)


def _texture(rng: np.random.Generator, height: int, width: int) -> Array:
    if rng.random() < 0.5:
        period, angle = rng.uniform(8, 80), rng.uniform(0, np.pi)
        ys, xs = np.mgrid[:height, :width].astype(np.float32)
        wave = np.sin((xs * np.cos(angle) + ys * np.sin(angle)) * (2 * np.pi / period))
        return np.sign(wave) if rng.random() < 0.5 else wave
    octaves = [
        rng.normal(size=(max(2, height // step), max(2, width // step))) for step in (4, 16, 64)
    ]
    return sum(
        cv2.resize(octave.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        for octave in octaves
    )


def _render(
    rng: np.random.Generator, pixels: Array, across: float, *, upright: bool = False
) -> Array:
    """Render a glyph at a size, rotation and lighting: float32 (h, w, 4), premultiplied."""
    while max(pixels.shape[:2]) > 2 * across:
        pixels = cv2.resize(
            pixels,
            (max(1, pixels.shape[1] // 2), max(1, pixels.shape[0] // 2)),
            interpolation=cv2.INTER_AREA,
        )
    height, width = pixels.shape[:2]
    scale = across / max(height, width)
    angle = rng.uniform(-25, 25) if rng.random() < 0.8 else rng.uniform(-180, 180)
    angle = angle / 3 if upright else angle
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    out_w, out_h = (
        int(np.ceil(width * cos + height * sin)) + 2,
        int(np.ceil(width * sin + height * cos)) + 2,
    )
    turn[:, 2] += (out_w - width) / 2, (out_h - height) / 2
    if rng.random() < 0.25:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    patch = cv2.warpAffine(pixels, turn, (out_w, out_h), flags=cv2.INTER_LINEAR)
    direction, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3)
    ys, xs = np.mgrid[-1 : 1 : out_h * 1j, -1 : 1 : out_w * 1j]
    light = rng.uniform(0.75, 1.15) * (
        1 + strength * (xs * np.cos(direction) + ys * np.sin(direction))
    )
    patch[..., :3] = np.minimum(patch[..., :3] * light[..., None], patch[..., 3:])
    return patch


def _blend(rng: np.random.Generator, canvas: Array, patch: Array, corner: tuple[int, int]) -> Array:
    """Adapt an object's brightness and tint to its surroundings and soften its edge.

    Otherwise lighting and edges would reveal that it was pasted.
    """
    under, over = _overlap(canvas.shape[:2], patch.shape, corner)
    inside = patch[over][..., 3]
    if inside.sum() < 1:
        return patch
    behind = canvas[under].reshape(-1, 3).mean(axis=0)
    own = patch[over][..., :3].reshape(-1, 3).sum(axis=0) / inside.sum()
    gain = ((behind + 0.1) / (own + 0.1)) ** rng.uniform(0, 0.45)
    patch = cv2.GaussianBlur(patch, (0, 0), rng.uniform(0.3, 1.2))
    patch[..., :3] = np.minimum(
        patch[..., :3] * gain.clip(0.5, 2).astype(np.float32), patch[..., 3:]
    )
    return patch


def _place(
    rng: np.random.Generator, patch: Array, layers: Array, full: Sequence[int], config: SceneConfig
) -> tuple[int, int] | None:
    """Find a corner where the object hides no other too much; None after ten tries."""
    height, width = config.size
    solid = patch[..., 3] > 0.5
    for _ in range(10):
        x = int(rng.integers(-patch.shape[1] // 6, max(1, width - patch.shape[1] * 5 // 6)))
        y = int(rng.integers(-patch.shape[0] // 6, max(1, height - patch.shape[0] * 5 // 6)))
        under, over = _overlap(layers.shape, patch.shape, (x, y))
        hidden = _count(layers[under][solid[over]], len(full))
        remaining = _count(layers, len(full)) if hidden.any() else np.ones(len(full))
        shares = (remaining - hidden) / np.maximum(full, 1)
        touched = hidden > 0
        if (
            not touched.any()
            or (shares[touched] > 1 - config.crowding).all()
            or rng.random() < 0.03
        ):
            return x, y
    return None


def _count(layers: Array, objects: int) -> Array:
    return np.bincount(np.maximum(layers.ravel(), -1) + 1, minlength=objects + 1)[1:]


def _overlap(
    size: tuple[int, ...], patch: tuple[int, ...], corner: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    x, y = corner
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + patch[1], size[1]), min(y + patch[0], size[0])
    return (slice(y1, y2), slice(x1, x2)), (slice(y1 - y, y2 - y), slice(x1 - x, x2 - x))


def _paste(
    rng: np.random.Generator,
    canvas: Array,
    layers: Array,
    patch: Array,
    corner: tuple[int, int],
    row: int,
) -> None:
    if rng.random() < 0.4:
        shift, radius = int(rng.integers(1, 7)), 2 * int(rng.integers(1, 6)) + 1
        shadow = cv2.GaussianBlur(patch[..., 3], (radius, radius), 0) * rng.uniform(0.15, 0.5)
        under, over = _overlap(layers.shape, patch.shape, (corner[0] + shift, corner[1] + shift))
        canvas[under] *= 1 - shadow[over][..., None]
    under, over = _overlap(layers.shape, patch.shape, corner)
    piece = patch[over]
    canvas[under] = canvas[under] * (1 - piece[..., 3:]) + piece[..., :3]
    layers[under][piece[..., 3] > 0.5] = row


def camera(rng: np.random.Generator, canvas: Array) -> Array:
    """Simulate a camera: contrast, tint, blur, noise, JPEG."""
    tint = rng.uniform(0.92, 1.08, 3).astype(np.float32)
    shot = canvas * (rng.uniform(0.8, 1.15) * tint) + rng.uniform(-0.06, 0.06)
    if rng.random() < 0.35:
        shot = cv2.GaussianBlur(shot, (0, 0), rng.uniform(0.4, 1.1))
    if rng.random() < 0.35:
        shot = shot + rng.normal(0, rng.uniform(0.005, 0.03), (*shot.shape[:2], 1)).astype(
            np.float32
        )
    pixels = np.clip(shot * 255, 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        quality = int(rng.integers(45, 95))
        coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        pixels = images.load(coded.tobytes()).pixels
    return pixels


def phrases(scene: Scene, row: int, glyphs: Sequence[Glyph]) -> list[str]:
    """Describe object ``row`` uniquely in the scene: by attribute, position or relation."""
    glyph = glyphs[scene.glyphs[row]]
    centres = (scene.masks.boxes[:, :2] + scene.masks.boxes[:, 2:]) / 2
    same = [other for other, index in enumerate(scene.glyphs) if index == scene.glyphs[row]]
    found = (
        [f"{glyph.colour} {glyph.name}"] if glyph.colour and glyph.colour not in glyph.name else []
    )
    if len(same) == 2:
        other = centres[same[0] if same[1] == row else same[1]]
        dx, dy = centres[row] - other
        words = (
            ("right", "left") if dx > 0 else ("left", "right"),
            ("bottom", "top") if dy > 0 else ("top", "bottom"),
        )
        found.append(
            f"the {glyph.name} on the {words[0][0]}"
            if abs(dx) > abs(dy)
            else f"the {glyph.name} at the {words[1][0]}"
        )
        area = scene.masks.areas
        found.append(f"the {'bigger' if area[row] > area[same].min() else 'smaller'} {glyph.name}")
    neighbours = [
        other
        for other in range(len(scene.glyphs))
        if scene.glyphs.count(scene.glyphs[other]) == 1 and other != row
    ]
    if neighbours and len(same) == 1:
        near = min(
            neighbours, key=lambda other: float(np.linalg.norm(centres[other] - centres[row]))
        )
        dx, dy = centres[row] - centres[near]
        side = (
            ("right of" if dx > 0 else "left of")
            if abs(dx) > abs(dy)
            else ("below" if dy > 0 else "above")
        )
        found.append(f"the {glyph.name} {side} the {glyphs[scene.glyphs[near]].name}")
    return found


def write_folder(
    folder: Path,
    seeds: Sequence[int],
    photos: Sequence[Photo],
    *,
    config: SceneConfig = SceneConfig(),
    absent: int = 3,
    jpeg: bool = False,
) -> Path:
    """Write scenes as a COCO-format folder.

    images/ and scenes.json with names, texts, phrases and absent names.
    """
    glyphs = load_glyphs()
    categories = [
        {"id": row + 1, "name": glyph.name, "texts": glyph.texts}
        for row, glyph in enumerate(glyphs)
    ]
    rows: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        scene = compose(seed, glyphs, photos, config)
        file = f"{seed}.{'jpg' if jpeg else 'png'}"
        settings = [cv2.IMWRITE_JPEG_QUALITY, 85] if jpeg else [cv2.IMWRITE_PNG_COMPRESSION, 3]
        write_image(folder / "images" / file, scene.pixels, settings)
        height, width = scene.pixels.shape[:2]
        gone = _absent(seed, scene, glyphs, absent)
        rows.append(
            {"id": seed, "file_name": file, "height": height, "width": width, "absent": gone}
        )
        for row in range(len(scene.glyphs)):
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": seed, **_annotation(scene, row, glyphs)})
    drawn = "Noto Color Emoji, SIL Open Font License 1.1"
    info = {"drawn objects": drawn, "photos": [photo.credit for photo in photos]}
    table = {"info": info, "images": rows, "annotations": annotations, "categories": categories}
    atomic.write(folder / "scenes.json", json.dumps(table, separators=(",", ":")).encode())
    return folder / "scenes.json"


def _absent(seed: int, scene: Scene, glyphs: Sequence[Glyph], count: int) -> list[str]:
    """Pick names whose every meaning is missing from the scene."""
    rng = np.random.default_rng([seed, 1])
    present = {text for index in scene.glyphs for text in glyphs[index].texts}
    means = meanings(list(glyphs))
    names = [glyph.name for glyph in glyphs if not present & set(glyph.texts)]
    names = [name for name in names if not set(means[name]) & set(scene.glyphs)]
    if not names:
        return []
    return [str(name) for name in rng.choice(names, min(count, len(names)), replace=False)]


def _annotation(scene: Scene, row: int, glyphs: Sequence[Glyph]) -> dict[str, object]:
    rle = coco_mask.encode(np.asfortranarray(scene.masks.full(row).astype(np.uint8)))
    x1, y1, x2, y2 = (int(v) for v in scene.masks.boxes[row])
    return {
        "category_id": scene.glyphs[row] + 1,
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
        "area": int(scene.masks.areas[row]),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "iscrowd": 0,
        "visible": round(float(scene.visible[row]), 4),
        "across": round(float(scene.across[row]), 1),
        "askable": bool(scene.askable[row]),
        "phrases": phrases(scene, row, glyphs) if scene.masks.areas[row] else [],
    }


def main(
    folder: Path,
    count: Annotated[int, typer.Option(help="Number of scenes.")] = 300,
    first: Annotated[int, typer.Option(help="First seed.")] = VALIDATION_SEED,
    photos: Annotated[
        Path | None, typer.Option(help="COCO-format folder of photos for backgrounds.")
    ] = None,
    free: Annotated[
        bool, typer.Option("--free", help="Only photos whose licence allows redistribution.")
    ] = False,
    jpeg: Annotated[
        bool, typer.Option("--jpeg", help="Write JPEG instead of lossless PNG.")
    ] = False,
) -> None:
    """Write validation scenes."""
    limits.check({"--count": (count, limits.COUNT), "--first": (first, limits.SEED)})
    if first < VALIDATION_SEED:
        raise BadPrompt(
            f"--first is {first}; seeds below {VALIDATION_SEED} are for training, which composes "
            "them itself"
        )
    claim(folder)
    behind = load_photos(photos, held_out=True, free=free)
    typer.echo(
        f"{count} scenes: {write_folder(folder, range(first, first + count), behind, jpeg=jpeg)}"
    )


if __name__ == "__main__":
    command.run(main)
