"""Random augmentation of images: another part, other colours, a turn, an erased patch."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from segclip.types import Array


@dataclass(frozen=True)
class Augment:
    """Random augmentation of an image.

    area: minimum share of the image that is kept. light: spread of brightness and tint. turn:
    standard deviation of the angle, degrees. erase: probability that a part is painted over.
    """

    area: float = 1.0
    flip: bool = False
    light: float = 0.0
    turn: float = 0.0
    erase: float = 0.0


AUGMENTS = {
    "none": Augment(),
    "light": Augment(area=0.8, flip=True),
    "medium": Augment(area=0.5, flip=True, light=0.1, turn=5),
    "strong": Augment(area=0.35, flip=True, light=0.15, turn=8, erase=0.25),
}


def augmented(
    rng: np.random.Generator, pixels: Array, size: int, augment: Augment, *, flip: bool
) -> Array:
    """Crop a random part of an image and vary its colours: uint8 (size, size, 3)."""
    height, width = pixels.shape[:2]
    part = rng.uniform(augment.area, 1)
    ratio = np.exp(rng.uniform(-0.29, 0.29)) if augment.area < 1 else 1.0
    side = min(height, width)
    w, h = min(width, side * np.sqrt(part * ratio)), min(height, side * np.sqrt(part / ratio))
    centred = augment.area == 1
    x = (width - w) / 2 if centred else rng.uniform(0, width - w)
    y = (height - h) / 2 if centred else rng.uniform(0, height - h)
    angle = rng.normal(0, augment.turn) if augment.turn else 0.0
    turn = cv2.getRotationMatrix2D((x + w / 2, y + h / 2), angle, 1.0)
    scale = np.array(
        [
            [size / w, 0, size / 2 - (x + w / 2) * size / w],
            [0, size / h, size / 2 - (y + h / 2) * size / h],
        ]
    )
    matrix = scale[:, :2] @ turn + np.array([[0, 0, scale[0, 2]], [0, 0, scale[1, 2]]])
    small = cv2.INTER_AREA if not augment.turn and min(w, h) > 1.5 * size else cv2.INTER_LINEAR
    if small == cv2.INTER_AREA:
        x1, y1, x2, y2 = int(x), int(y), int(np.ceil(x + w)), int(np.ceil(y + h))
        out = cv2.resize(pixels[y1:y2, x1:x2], (size, size), interpolation=small)
    else:
        out = cv2.warpAffine(
            pixels, matrix, (size, size), flags=small, borderMode=cv2.BORDER_REFLECT_101
        )
    if flip and augment.flip and rng.random() < 0.5:
        out = out[:, ::-1]
    if augment.light:
        gain = rng.normal(1, augment.light) * rng.normal(1, augment.light / 2, 3)
        out = np.clip(out * gain + rng.normal(0, 100 * augment.light), 0, 255).astype(np.uint8)
        if rng.random() < 0.1:
            out = np.repeat(out.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    if rng.random() < augment.erase:
        out = out.copy()
        h0, w0 = rng.integers(size // 8, size // 2 + 1, 2)
        y0, x0 = int(rng.integers(size - h0 + 1)), int(rng.integers(size - w0 + 1))
        out[y0 : y0 + h0, x0 : x0 + w0] = rng.integers(0, 256, 3)
    return out
