"""Results as pixels: overlay, masks, cut-outs, label map, arrays."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from .. import registry
from ..drawing import overlay
from ..errors import BadPrompt
from ..files.profiles import srgb
from ..types import Masks, Result
from .files import encode, numbered, to_json, write

IMAGE_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
MOST_LABELS = 2**16 - 1


def write_overlay(result: Result, path: Path) -> list[Path]:
    """Write the image with its rows drawn on it."""
    kind = registry.choose(IMAGE_KINDS, path.suffix.lower(), "image suffix")
    return [write(path, encode(overlay(result), kind))]


def write_masks(result: Result, path: Path) -> list[Path]:
    """Write a full-size grey PNG per row, 0 outside and 255 inside, to <stem>.<row>.png."""
    written = []
    for row in range(len(result)):
        grey = PIL.Image.fromarray(result.masks.full(row).astype(np.uint8) * np.uint8(255))
        written.append(write(numbered(path, row), encode(grey, "PNG")))
    return written


def write_cutouts(result: Result, path: Path, *, feather: float = 0.0) -> list[Path]:
    """Write an RGBA PNG of the box per row, in sRGB, to <stem>.<row>.png.

    Pixels outside the mask are transparent black. feather: width in px of the fading edge, half of
    it inside the mask; the box grows by the other half.
    """
    written = []
    reach = int(np.ceil(1.5 * feather))
    height, width = result.image.size
    for row, (x1, y1, x2, y2) in enumerate(result.masks.boxes.tolist()):
        if not result.masks.areas[row]:
            continue
        left, top = max(x1 - reach, 0), max(y1 - reach, 0)
        right, bottom = min(x2 + reach, width), min(y2 + reach, height)
        alpha = np.zeros((bottom - top, right - left), np.uint8)
        alpha[y1 - top : y2 - top, x1 - left : x2 - left][result.masks.bitmaps[row]] = 255
        if feather:
            alpha = cv2.GaussianBlur(alpha, (0, 0), feather / 2)
        pixels = result.image.pixels[top:bottom, left:right] * (alpha > 0)[..., None]
        cutout = PIL.Image.fromarray(np.dstack((pixels, alpha)))
        written.append(write(numbered(path, row), encode(cutout, "PNG", profile=srgb())))
    return written


def write_labelmap(result: Result, path: Path) -> list[Path]:
    """Write a 16-bit PNG, 0 for background and r + 1 for row r, with <stem>.legend.json.

    The legend names the values. Where masks overlap, the better row is on top.
    """
    if len(result) > MOST_LABELS:
        raise BadPrompt(
            f"a label map holds at most {MOST_LABELS} rows, this result has {len(result)}"
        )
    labels = np.zeros(result.image.size, np.uint16)
    for row in range(len(result) - 1, -1, -1):
        x1, y1, x2, y2 = result.masks.boxes[row]
        labels[y1:y2, x1:x2][result.masks.bitmaps[row]] = row + 1
    legend = {str(row + 1): {"text": text, "score": round(float(result.score[row]), 6)}
              for row, text in enumerate(result.texts)}  # fmt: skip
    legend_file = path.with_name(f"{path.stem}.legend.json")
    return [
        write(path, encode(PIL.Image.fromarray(labels), "PNG")),
        write(legend_file, to_json(legend)),
    ]


def write_arrays(result: Result, path: Path) -> list[Path]:
    """Write a NumPy archive of size, boxes, texts, scores and packed bitmaps.

    ``read_arrays`` reads it.
    """
    file = io.BytesIO()
    bits = [np.packbits(bitmap) for bitmap in result.masks.bitmaps]
    np.savez(
        file,
        size=np.array(result.image.size),
        boxes=result.masks.boxes,
        bits=np.concatenate([np.zeros(0, np.uint8), *bits]),
        texts=np.array(result.texts, dtype=np.str_),
        similarity=result.similarity,
        probability=result.probability,
        quality=result.quality,
    )
    return [write(path, file.getvalue())]


def read_arrays(path: Path) -> tuple[Masks, tuple[str, ...]]:
    """Read masks and texts back from an archive of ``write_arrays``."""
    with np.load(path) as stored:
        boxes, bits, size = stored["boxes"], stored["bits"], stored["size"]
        texts = tuple(stored["texts"].tolist())
    bitmaps, start = [], 0
    for x1, y1, x2, y2 in boxes.tolist():
        count = (y2 - y1) * (x2 - x1)
        end = start + -(-count // 8)
        bitmaps.append(
            np.unpackbits(bits[start:end], count=count).astype(bool).reshape(y2 - y1, x2 - x1)
        )
        start = end
    return Masks(boxes, tuple(bitmaps), (int(size[0]), int(size[1]))), texts
