"""Draw results for viewing; `exporters` writes the formats that programs read."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFont, ImageOps

from .errors import BadPrompt, Unsupported
from .types import Array, Image, Masks, Result

_Pen: TypeAlias = ImageDraw.ImageDraw
_Font: TypeAlias = ImageFont.FreeTypeFont
_Colour: TypeAlias = tuple[int, int, int]
_GOLDEN = 0.618034  # hues a golden section apart stay distinct for any number of rows
_FIRST_HUE = 0.92
_LONGEST_LABEL = 48
_SHADE = 0.45  # brightness outside the masks of a spotlight


def overlay(result: Result, *, opacity: float = 0.5, labels: bool = True) -> PIL.Image.Image:
    """Tint, outline and label each row's mask on a copy of the image, best on top.

    opacity: of the tint, 0 to 1. With labels, a banner at the top names the texts without an
    answer. Raises BadPrompt for another opacity.
    """
    if not 0 <= opacity <= 1:
        raise BadPrompt(f"opacity must lie in 0 to 1, got {opacity}")
    pixels = result.image.pixels.copy()
    unit = max(1.0, min(result.image.size) / 480)  # lines and letters suit a side of 480 px
    backwards = range(len(result) - 1, -1, -1)
    for row in backwards:
        _tint(pixels, result, row, opacity)
        _outline(pixels, result, row, round(2 * unit))
    drawn = PIL.Image.fromarray(pixels)
    if labels:
        pen, font = ImageDraw.Draw(drawn), _load_font(15 * unit)
        for row in backwards:
            x, y = (int(v) for v in result.masks.boxes[row, :2])
            words = f"{_shorten(result.texts[row])} {result.score[row]:.2f}"
            _write(pen, (x, y), words, font, colour(row))
        if result.unanswered or not len(result):
            words = "nothing matches: " + ", ".join(_shorten(text) for text in result.unanswered)
            _write(pen, (0, 0), words.removesuffix(": "), font, (32, 32, 32))
    return drawn


def shrink(image: Image, masks: Masks, side: int) -> tuple[Image, Masks]:
    """Subsample an image and its masks to a longer side of about ``side`` pixels."""
    step = max(1, max(image.size) // side)
    small = Image(np.ascontiguousarray(image.pixels[::step, ::step]), image.source)
    windows = []
    for (x1, y1, *_), bitmap in zip(masks.boxes.tolist(), masks.bitmaps, strict=True):
        part = bitmap[-y1 % step :: step, -x1 % step :: step]  # what lies on the coarser grid
        windows.append((-(-x1 // step), -(-y1 // step), part))
    return small, Masks.from_windows(windows, small.size)


def spotlight(result: Result) -> PIL.Image.Image:
    """Darken an image outside its masks and outline them, for thumbnails; no masks, no change."""
    if not len(result):
        return PIL.Image.fromarray(result.image.pixels)
    pixels = (result.image.pixels * _SHADE).astype(np.uint8)
    for (x1, y1, x2, y2), bitmap in zip(result.masks.boxes, result.masks.bitmaps, strict=True):
        pixels[y1:y2, x1:x2][bitmap] = result.image.pixels[y1:y2, x1:x2][bitmap]
    for row in range(len(result)):
        _outline(pixels, result, row, max(2, round(min(result.image.size) / 100)))
    return PIL.Image.fromarray(pixels)


def heat(image: Image, warm: Array, *, opacity: float = 0.6) -> PIL.Image.Image:
    """Colour a copy of the image by a heat map, from blue (minimum) to red (maximum).

    warm: (H, W), of any range.
    """
    low, high = float(warm.min()), float(warm.max())
    steps = np.uint8(255 * (warm - low) / max(high - low, 1e-6))
    colours = cv2.applyColorMap(steps, cv2.COLORMAP_JET)[..., ::-1]
    return PIL.Image.fromarray(
        cv2.addWeighted(image.pixels, 1 - opacity, np.ascontiguousarray(colours), opacity, 0)
    )


def labels(image: Image, indices: Array, *, opacity: float = 0.6) -> PIL.Image.Image:
    """Colour a copy of the image by the text of each pixel.

    indices: int (H, W), the index of the text; pixels of -1 stay as they are.
    """
    pixels = image.pixels.copy()
    for row in np.unique(indices[indices >= 0]):
        inside = indices == row
        pixels[inside] = (1 - opacity) * pixels[inside] + opacity * np.array(colour(int(row)))
    return PIL.Image.fromarray(pixels)


def contact_sheet(
    images: Sequence[PIL.Image.Image],
    captions: Sequence[str],
    *,
    columns: int = 4,
    tile: int = 320,
) -> PIL.Image.Image:
    """Lay images out in a grid, each shrunk to at most ``tile`` pixels, with its caption beneath.

    A row is as high as its highest image.
    """
    if len(images) != len(captions):
        raise ValueError(f"want one caption per image, got {len(captions)} for {len(images)}")
    gap, strip = tile // 80, tile // 10
    columns = max(1, min(columns, len(images)))
    small = [
        ImageOps.contain(image.convert("RGB"), (tile - 2 * gap, tile - 2 * gap)) for image in images
    ]
    rows = [small[start : start + columns] for start in range(0, len(small), columns)]
    heights = [max(image.height for image in row) + 2 * gap for row in rows]
    size = columns * tile, sum(heights) + len(rows) * strip if rows else strip
    sheet = PIL.Image.new("RGB", size, "white")
    pen, font, top, beneath = ImageDraw.Draw(sheet), _load_font(strip * 0.55), 0, iter(captions)
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            middle = column * tile + tile / 2
            sheet.paste(image, (round(middle - image.width / 2), top + height - gap - image.height))
            caption = _shorten(next(beneath))
            pen.text((middle, top + height + strip / 2), caption, "black", font, anchor="mm")
        top += height + strip
    return sheet


def _shorten(text: str) -> str:
    """Make any string drawable: one line, no lone surrogates, at most _LONGEST_LABEL characters."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return line if len(line) <= _LONGEST_LABEL else line[: _LONGEST_LABEL - 3] + "..."


def _load_font(size: float) -> _Font:
    font = ImageFont.load_default(size)  # Pillow's own: no font of the machine is needed
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise Unsupported(
            "labels need a Pillow built with FreeType; install its own wheel, or draw without "
            "labels"
        )
    return font


def colour(row: int) -> _Colour:
    """Return the colour of a row, RGB in 0 to 255: adjacent rows differ."""
    red, green, blue = colorsys.hsv_to_rgb((_FIRST_HUE + row * _GOLDEN) % 1, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _tint(pixels: Array, result: Result, row: int, opacity: float) -> None:
    x1, y1, x2, y2 = result.masks.boxes[row]
    inside = pixels[y1:y2, x1:x2]
    if not inside.size:
        return
    steps = np.arange(256)[:, None] * (1 - opacity) + np.array(colour(row)) * opacity
    tinted = cv2.LUT(inside, np.rint(steps).astype(np.uint8)[None])
    cv2.copyTo(tinted, result.masks.bitmaps[row].view(np.uint8), inside)


def _outline(pixels: Array, result: Result, row: int, width: int) -> None:
    corner = tuple(int(v) for v in result.masks.boxes[row, :2])
    bitmap = result.masks.bitmaps[row].astype(np.uint8)
    if not bitmap.size:
        return
    contours, _ = cv2.findContours(bitmap, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(pixels, contours, -1, (255, 255, 255), width + 2, offset=corner)
    cv2.drawContours(pixels, contours, -1, colour(row), width, offset=corner)


def _write(pen: _Pen, at: tuple[int, int], words: str, font: _Font, ground: _Colour) -> None:
    """Write words on a coloured plate above the point ``at``, moved to stay inside the image."""
    pad = font.size // 4
    height, width = round(font.size * 1.3), round(pen.textlength(words, font) + 2 * pad)
    x = max(0, min(at[0], pen.im.size[0] - width))
    y = max(0, at[1] - height)
    luminance = np.dot(ground, (0.299, 0.587, 0.114))
    pen.rectangle((x, y, x + width, y + height), ground)
    pen.text(
        (x + pad, y + height / 2), words, "black" if luminance > 140 else "white", font, anchor="lm"
    )
