"""Turn pictures and answers into what the browser draws: small, at the size it is looked at."""

from __future__ import annotations

import base64
import io
from textwrap import shorten
from typing import Any

import numpy as np
import PIL.Image

import segclip

from .answers import Answer

PICTURE_SIDE = 1600  # px, of the longer side: what is sent of a picture, once
MAP_SIDE = 1024  # px: what is sent of the masks, at every answer
SMALL = 300_000  # pixels: pictures up to here go without loss
MOST_LISTED = 3  # texts a headline names


def picture_url(image: segclip.Image) -> str:
    """Give a picture, shrunk, as a data address."""
    picture = PIL.Image.fromarray(image.pixels)
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    file = io.BytesIO()
    if picture.width * picture.height <= SMALL:
        picture.save(file, "PNG", compress_level=1)
        return _address(file, "png")
    picture.save(file, "JPEG", quality=88)
    return _address(file, "jpeg")


def map_runs(masks: segclip.Masks) -> str:
    """Give the label map as text, each row in runs of equal labels: "W H LABELS LENGTHS".

    LABELS, LENGTHS: base64 of a byte for each run, and of two, the lower first.
    """
    labels = label_map(masks, MAP_SIDE)
    begins = np.ones(labels.shape, bool)
    begins[:, 1:] = labels[:, 1:] != labels[:, :-1]
    runs = np.flatnonzero(begins)
    parts = (labels.ravel()[runs], np.diff(runs, append=labels.size).astype("<u2"))
    height, width = labels.shape
    return " ".join(
        (str(width), str(height), *(base64.b64encode(part.tobytes()).decode() for part in parts))
    )


def label_map(masks: segclip.Masks, side: int) -> np.ndarray:
    """Number each pixel at a longer side of at most ``side``: 0 for nothing, r + 1 for row r, uint8
    (h, w).

    Where masks overlap the better row shows.
    """
    height, width = masks.size
    scale = min(1.0, side / max(height, width))
    ys = _centres(height, max(1, round(height * scale)))
    xs = _centres(width, max(1, round(width * scale)))
    labels = np.zeros((len(ys), len(xs)), np.uint8)
    for row in range(len(masks) - 1, -1, -1):
        x1, y1, x2, y2 = masks.boxes[row].tolist()
        top, bottom = np.searchsorted(ys, (y1, y2))
        left, right = np.searchsorted(xs, (x1, x2))
        if top < bottom and left < right:
            seen = masks.bitmaps[row][np.ix_(ys[top:bottom] - y1, xs[left:right] - x1)]
            labels[top:bottom, left:right][seen] = row + 1
    return labels


def rows_of(answer: Answer) -> list[dict[str, Any]]:
    """Describe the candidates for the strip."""
    result = answer.candidates
    columns = zip(result.texts, result.probability, result.similarity, result.quality, strict=True)
    return [
        {
            "text": f"mask {row + 1}" if answer.draft.by_place else text,
            "probability": _number(probability),
            "similarity": _number(similarity),
            "quality": _number(quality),
            "box": result.masks.boxes[row].tolist(),
            "area": int(result.masks.areas[row]),
            "taken": row in answer.taken,
            "miss": row >= answer.hits,
        }
        for row, (text, probability, similarity, quality) in enumerate(columns)
    ]


def headline(answer: Answer) -> str:
    """Say in a sentence what was found, for everyone, and for who cannot see the picture."""
    question, count = answer.draft, answer.hits
    if question.by_place:
        if not count or not answer.chosen.masks.areas.any():
            return "Nothing at this place"
        return (
            f"The object at the click{'s' * (len(question.points) > 1)}"
            if question.points
            else "The object in the box"
        )
    if question.everything:
        return (
            f"{count} object{'s' * (count != 1)}" if count else "Nothing here is surely an object"
        )
    if not question.texts:
        return "Type what to look for, or click on it"
    if not count:
        return "Nothing here matches " + _listed(answer.unanswered)
    missing = answer.unanswered
    return f"{count} found" + (f"; nothing matches {_listed(missing)}" if missing else "")


def reached(answer: Answer) -> float:
    """Give the threshold the slider stands at: its own, else the lowest that changes nothing of the
    answer.
    """
    result = answer.candidates
    if answer.draft.threshold is not None:
        return answer.draft.threshold
    share = segclip.Selection().near_best
    found = [near for near in result.nearest if near >= result.threshold]
    return min((max(result.threshold, share * near) for near in found), default=result.threshold)


def notes(answer: Answer) -> list[str]:
    """Say why: words of place that chose, how far the nearest miss stayed behind."""
    result = answer.candidates
    if answer.draft.by_place or answer.draft.everything:
        return []
    told = [
        f"“{text}”: {why}" for text, why in zip(result.asked, result.reasons, strict=False) if why
    ]
    for text, near in zip(result.asked, result.nearest, strict=False):
        if text in answer.unanswered and near < result.threshold:  # else words of place left none
            told.append(
                f"“{text}”: the best region reaches {near:.2f}, {result.threshold:.2f} is asked for"
            )
    return told


def _listed(texts: tuple[str, ...]) -> str:
    """Name the first texts, short; the notes have all of them, whole."""
    named = ", ".join(f"“{shorten(text, 40, placeholder=' ...')}”" for text in texts[:MOST_LISTED])
    return named + (f" and {len(texts) - MOST_LISTED} more" if len(texts) > MOST_LISTED else "")


def _centres(length: int, count: int) -> np.ndarray:
    """Give the pixel at the middle of each of ``count`` equal steps."""
    return ((np.arange(count) + 0.5) * length / count).astype(np.int64)


def _number(value: float) -> float | None:
    return None if value != value else round(float(value), 4)


def _address(file: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()
