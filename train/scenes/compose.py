"""Compose labelled scenes of drawn objects on procedural and photo backgrounds.

Scenes come with exact masks, names and phrases. They are deterministic: a seed is a scene. Seeds
from VALIDATION_SEED up are for validation and are never trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from segclip import images
from segclip.types import Array, Masks

from .glyphs import Glyph
from .photos import Photo

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
