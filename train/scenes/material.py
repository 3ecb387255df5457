"""Make training tiles of drawn scenes, scenes of cut-outs, and parts of labelled photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from segclip.types import Array

from .compose import SceneConfig, camera, compose
from .cutouts import PHOTOGRAPHIC, Cutout, load_cutouts, photo_cutouts
from .glyphs import Glyph, load_glyphs
from .photos import Photo, load_photos

GREY = 114  # padding of photos, as in serving
MOST = {"clothes": 150, "food": 90}  # photos of sources with few classes
SHARES = {"": 0.72, "people": 0.06, "clothes": 0.09, "bottles": 0.05, "food": 0.05}  # "": COCO's


@dataclass(frozen=True)
class Mixture:
    """Shares of the tiles that are drawn scenes and scenes of cut-outs; the rest are photos."""

    drawn: float = 0.25
    pasted: float = 0.27


@dataclass(frozen=True, eq=False)
class Material:
    """Sources of tiles. groups: ``photos`` by collection."""

    glyphs: Sequence[Glyph]
    cutouts: Sequence[Cutout] = ()
    photos: Sequence[Photo] = ()
    mixture: Mixture = Mixture()
    groups: dict[str, list[Photo]] = field(init=False)

    def __post_init__(self) -> None:
        groups: dict[str, list[Photo]] = {}
        for photo in self.photos:
            groups.setdefault("" if photo.source == "coco" else photo.source, []).append(photo)
        object.__setattr__(self, "groups", groups)

    @property
    def behind(self) -> Sequence[Photo]:
        """Return the background photos of scenes: those with nearly every object labelled."""
        return self.groups.get("", [])

    def tile(
        self, seed: int, size: int, drawn: SceneConfig, *, beyond: int = GREY
    ) -> tuple[Array, Array]:
        """Make the tile of ``seed``: uint8 (S, S, 3) and its layers, int16 (S, S).

        Layers are as in ``scenes.Scene``. drawn: configuration of drawn scenes. beyond: grey level
        outside a photo.
        """
        rng = np.random.default_rng([seed, 5])
        kind = rng.random()
        cut = kind < self.mixture.drawn + self.mixture.pasted and self.cutouts
        if kind < self.mixture.drawn or not (cut or self.photos):
            scene = compose(seed, self.glyphs, self.behind, replace(drawn, size=(size, size)))
            return scene.pixels, scene.layers
        if cut:
            most = size * float(rng.uniform(0.3, 1.2))
            config = replace(
                PHOTOGRAPHIC, size=(size, size), objects=(1, 7), across=(26, max(most, 60))
            )
            scene = compose(seed, self.cutouts, self.behind, config)
            return scene.pixels, scene.layers
        shares = np.array([SHARES.get(name, 0.02) for name in self.groups])
        group = list(self.groups.values())[int(rng.choice(len(shares), p=shares / shares.sum()))]
        return photo_tile(rng, group[int(rng.integers(len(group)))], size, beyond=beyond)


def photo_tile(
    rng: np.random.Generator, photo: Photo, size: int, *, beyond: int = GREY
) -> tuple[Array, Array]:
    """Crop a tile from a photo, padded with ``beyond``; mirrored half the time.

    Returns uint8 (S, S, 3) and layers, int16 (S, S): -1 where nothing is labelled, -1 - k for the
    photo's object k.
    """
    height, width = photo.labels.shape
    side = max(height, width) * float(np.exp(rng.uniform(np.log(0.4), np.log(1.1))))
    stretch = float(np.exp(rng.uniform(-0.12, 0.12)))
    part = np.array([side * stretch, side / stretch])  # width, height
    room = np.array([width, height]) - part
    corner = np.where(room > 0, rng.random(2) * room, rng.random(2) * room)
    scale = size / part
    turn = np.array([[scale[0], 0, -corner[0] * scale[0]], [0, scale[1], -corner[1] * scale[1]]])
    pixels, labels = photo.pixels, photo.labels
    if rng.random() < 0.5:
        pixels, labels = (
            np.ascontiguousarray(pixels[:, ::-1]),
            np.ascontiguousarray(labels[:, ::-1]),
        )
    shrinks = bool(scale.min() < 0.7)
    if shrinks:  # area averaging first, against aliasing
        half = cv2.resize(
            pixels,
            (round(width * scale[0]), round(height * scale[1])),
            interpolation=cv2.INTER_AREA,
        )
        moved = np.array([[1, 0, turn[0, 2]], [0, 1, turn[1, 2]]])
        made = cv2.warpAffine(half, moved, (size, size), borderMode=cv2.BORDER_REPLICATE)
    else:
        made = cv2.warpAffine(pixels, turn, (size, size), borderMode=cv2.BORDER_REPLICATE)
    # from 1, so that 0 is outside the photo
    layers = cv2.warpAffine(labels + 1, turn, (size, size), flags=cv2.INTER_NEAREST, borderValue=0)
    shot = camera(rng, made.astype(np.float32) / 255)
    if rng.random() < 0.04:
        shot = np.repeat(shot.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    shot[layers == 0] = beyond
    return shot, -np.maximum(layers, 1)


def load_material(
    folders: Sequence[Path], foreground: Path | None = None, mixture: Mixture = Mixture()
) -> Material:
    """Load the training part of COCO-format folders of photos, and of a folder of cut-outs.

    foreground: the folder of cut-outs, next to its photographs.
    """
    photos = [
        photo for folder in folders for photo in load_photos(folder, held_out=False, most=MOST)
    ]
    whole = [photo for photo in photos if photo.source in ("", "coco")]
    cutouts = photo_cutouts(whole)
    if foreground:
        cutouts += load_cutouts(foreground, foreground.parent, held_out=False)
    return Material(load_glyphs(), cutouts, photos, mixture)
