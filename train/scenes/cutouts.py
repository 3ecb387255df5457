"""Cut objects out of photographs, with their names, to paste into scenes like drawn ones.

Cut, Paste and Learn, Dwibedi et al. 2017, https://arxiv.org/abs/1708.01642. The masks are a
background remover's: PNG files laid out as the photographs are, and masks.csv: mask, share, pieces,
on_border, soft. ``scenes.compose(seed, cutouts, photos, PHOTOGRAPHIC)`` pastes them; its
``Scene.glyphs`` are then rows of ``cutouts``.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from segclip import images
from segclip.types import Array

from .compose import SceneConfig
from .photos import HELD_OUT_EVERY, Photo

MOST_ACROSS = 288  # px kept of a cut-out
LEAST_AREA = 1500  # px, of a labelled object of a photo
SOFTEST, EMPTIEST, FULLEST, MOST_PIECES, MOST_ON_BORDER = 0.35, 0.03, 0.85, 2, 0.2
PHOTOGRAPHIC = SceneConfig(photo_share=0.8, across=(26, 320), upright=True, blended=0.7)
# parts, or without a shape
NOT_THINGS = ("skin", "hair", "stockings", "tights", "intimate", "accessories", "rice")


@dataclass(frozen=True, eq=False)
class Cutout:
    """An object cut out of a photo, usable as a Glyph.

    name: of its class. texts: its names, ``name`` first. colour: "". stored: uint8 (h, w, 4) RGBA,
    not premultiplied.
    """

    name: str
    texts: tuple[str, ...]
    stored: Array
    colour: str = ""

    @property
    def pixels(self) -> Array:
        """Return float32 (h, w, 4) RGBA in [0, 1], colour premultiplied, as of a Glyph."""
        rgba = self.stored.astype(np.float32) / 255
        rgba[..., :3] *= rgba[..., 3:]
        return rgba


def load_cutouts(folder: Path, photos: Path, *, held_out: bool) -> list[Cutout]:
    """Load a background remover's cut-outs.

    Masks that are soft, empty, full, fragmented or cut by the frame are left out. folder: holds
    masks.csv; the photographs are in ``photos``/<first part of the mask's path>. held_out: every
    fifth of those that are kept, by name, else the rest.
    """
    rows = list(csv.DictReader((folder / "masks.csv").read_text("utf-8").splitlines()))
    kept = sorted((row["mask"] for row in rows if _clean(row)), key=str)
    chosen = [
        mask
        for row, mask in enumerate(kept)
        if (row % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out
    ]
    names = _names(photos / "imagenet-sample")
    found = []
    for mask in chosen:
        photo = photos / Path(mask).with_suffix(".jpg")
        alpha = cv2.imread(str(folder / mask), cv2.IMREAD_GRAYSCALE)
        if alpha is None or not photo.is_file():
            continue
        pixels = images.load(photo).pixels
        if alpha.shape != pixels.shape[:2]:
            alpha = cv2.resize(alpha, pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
        name = names.get(photo.name) or photo.parent.name.replace("_", " ").lower()
        found.append(Cutout(name, (name,), cut_out(pixels, alpha)))
    return found


def photo_cutouts(photos: Sequence[Photo]) -> list[Cutout]:
    """Cut the large labelled objects out of photos.

    Parts, and objects cut by the frame, are left out.
    """
    found = []
    for photo in photos:
        border = {
            int(v)
            for edge in (photo.labels[0], photo.labels[-1], photo.labels[:, 0], photo.labels[:, -1])
            for v in np.unique(edge)
        }
        for number, name in enumerate(photo.names, 1):
            inside = photo.labels == number
            if number in border or inside.sum() < LEAST_AREA or name in NOT_THINGS:
                continue
            alpha = cv2.GaussianBlur(inside.astype(np.uint8) * 255, (0, 0), 0.8)
            found.append(Cutout(name, (name,), cut_out(photo.pixels, alpha)))
    return found


def cut_out(pixels: Array, alpha: Array) -> Array:
    """Cut uint8 (H, W, 3) by uint8 (H, W), trimmed, at most MOST_ACROSS px: uint8 (h, w, 4).

    The edge is eroded slightly: its outer half contains more background than object.
    """
    opaque = np.rint(np.clip((alpha.astype(np.float32) - 64) * (255 / 191), 0, 255)).astype(
        np.uint8
    )
    ys, xs = np.flatnonzero((opaque > 8).any(axis=1)), np.flatnonzero((opaque > 8).any(axis=0))
    window = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    rgba = np.dstack([pixels[window], opaque[window]])
    gain = MOST_ACROSS / max(rgba.shape[:2])
    if gain >= 1:
        return rgba
    size = max(1, round(rgba.shape[1] * gain)), max(1, round(rgba.shape[0] * gain))
    return cv2.resize(rgba, size, interpolation=cv2.INTER_AREA)


def _clean(row: dict[str, str]) -> bool:
    share, pieces, border, soft = (
        float(row[name]) for name in ("share", "pieces", "on_border", "soft")
    )
    whole = EMPTIEST < share < FULLEST and pieces <= MOST_PIECES
    return whole and soft < SOFTEST and border < MOST_ON_BORDER


def _names(folder: Path) -> dict[str, str]:
    table = folder / "names.csv"
    if not table.is_file():
        return {}
    return {
        row["image"]: row["name"] for row in csv.DictReader(table.read_text("utf-8").splitlines())
    }
