"""Turn images and answers into what the browser draws, at display size."""

from __future__ import annotations

import base64
import io
import math
from textwrap import shorten
from typing import Any

import numpy as np
import PIL.Image

import segclip

from .answers import Answer

IMAGE_SIDE = 1600  # px, longer side of an image, sent once
MAP_SIDE = 1024  # px, longer side of the label map, sent with every answer
SMALL = 300_000  # pixels: up to this size images are sent without loss
MOST_LISTED = 3  # texts in a headline


def image_url(image: segclip.Image) -> str:
    """Return the image, shrunk, as a data URL."""
    shrunk = PIL.Image.fromarray(image.pixels)
    shrunk.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    file = io.BytesIO()
    if shrunk.width * shrunk.height <= SMALL:
        shrunk.save(file, "PNG", compress_level=1)
        return _data_url(file, "png")
    shrunk.save(file, "JPEG", quality=88)
    return _data_url(file, "jpeg")


def map_runs(masks: segclip.Masks) -> str:
    """Encode the label map as text, in runs of equal labels within a row: "W H LABELS LENGTHS".

    LABELS, LENGTHS: base64 of one byte per run, and of two bytes per run, little-endian.
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
    """Return a label map uint8 (h, w): 0 for background, r + 1 for row r.

    side: longer side at most, in pixels. Where masks overlap the first row wins.
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
            inside = masks.bitmaps[row][np.ix_(ys[top:bottom] - y1, xs[left:right] - x1)]
            labels[top:bottom, left:right][inside] = row + 1
    return labels


def rows_of(answer: Answer) -> list[dict[str, Any]]:
    """Describe the candidates for the list beside the image."""
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
    """Summarise the answer in a sentence, also for screen readers."""
    question, count = answer.draft, answer.hits
    if question.by_place:
        if not count or not answer.chosen.masks.areas.any():
            return "No object here"
        return (
            f"The object at the click{'s' * (len(question.points) > 1)}"
            if question.points
            else "The object in the box"
        )
    if question.everything:
        return f"{count} object{'s' * (count != 1)}" if count else "No object reaches the threshold"
    if not question.texts:
        return "Type what to find, or click on it"
    if not count:
        return "Nothing here matches " + _listed(answer.unanswered)
    missing = answer.unanswered
    return f"{count} found" + (f"; nothing matches {_listed(missing)}" if missing else "")


def slider_threshold(answer: Answer) -> float:
    """Return the slider's threshold: the user's, else the lowest that keeps the answer."""
    result = answer.candidates
    if answer.draft.threshold is not None:
        return answer.draft.threshold
    share = segclip.Selection().near_best
    found = [near for near in result.nearest if near >= result.threshold]
    return min((max(result.threshold, share * near) for near in found), default=result.threshold)


def notes(answer: Answer) -> list[str]:
    """Explain the answer: words of position that filtered, and the scores of near misses."""
    result = answer.candidates
    if answer.draft.by_place or answer.draft.everything:
        return []
    lines = [
        f"“{text}”: {why}" for text, why in zip(result.asked, result.reasons, strict=False) if why
    ]
    resembles = result.resembles or (None,) * len(result.asked)
    for text, near, rather in zip(result.asked, result.nearest, resembles, strict=False):
        # above the threshold, words of position ruled the matches out
        if text in answer.unanswered and near < result.threshold:
            lines.append(
                f"“{text}”: the best region scores {near:.2f}, below the threshold "
                f"{result.threshold:.2f}" + (f"; it looks like: {rather.name}" if rather else "")
            )
    return lines


def _listed(texts: tuple[str, ...]) -> str:
    """List the first texts, shortened; the notes have all of them in full."""
    listed = ", ".join(f"“{shorten(text, 40, placeholder=' ...')}”" for text in texts[:MOST_LISTED])
    return listed + (f" and {len(texts) - MOST_LISTED} more" if len(texts) > MOST_LISTED else "")


def _centres(length: int, count: int) -> np.ndarray:
    """Return the pixel at the centre of each of ``count`` equal steps."""
    return ((np.arange(count) + 0.5) * length / count).astype(np.int64)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)


def _data_url(file: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()
