"""Apply the browser's events to a work; everything it sends is validated."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import segclip

from .state import CachedImage, Studio, Work

MOST_POINTS = 100
_LARGEST = 1e9  # above the pixel count of any image


def handle(studio: Studio, work: Work, event: Mapping[str, Any]) -> None:
    """Apply an event to a work. Raises BadPrompt for a bad event, BadImage for a bad image."""
    kind = event.get("kind")
    with work.lock:
        if kind == "point":
            if len(work.draft.points) >= MOST_POINTS:
                raise segclip.BadPrompt(f"at most {MOST_POINTS} points per object are allowed")
            work.click(*_inside(work, event, ("x", "y")), int(event.get("label") != 0))
        elif kind == "box":
            x1, y1, x2, y2 = _numbers(event.get("box"), 4)
            segclip.Boxes([(x1, y1, x2, y2)]).check(work.image.size)
            work.drag((x1, y1, x2, y2))
        elif kind == "take":
            work.take(int(_number(event.get("row"))))
        elif kind == "tune":
            top = event.get("top")
            threshold = event.get("threshold")
            selection = segclip.Selection(
                None if threshold is None else _number(threshold),
                None if top is None else int(_number(top)),
            )
            work.tune(selection.threshold, selection.top_k)
        elif kind == "file":
            work.open(CachedImage(_image(studio, event)))
        elif kind in ("undo", "clear", "everything"):
            getattr(work, kind)()
        else:
            raise segclip.BadPrompt(f"unknown event {str(kind)[:40]!r}")


def _inside(work: Work, event: Mapping[str, Any], names: tuple[str, str]) -> tuple[float, float]:
    x, y = (_number(event.get(name)) for name in names)
    segclip.Points([(x, y)]).check(work.image.size)
    return x, y


def _image(studio: Studio, event: Mapping[str, Any]) -> segclip.Image:
    name = str(event.get("name") or "image")[:200]
    try:
        data = base64.b64decode(str(event.get("content")), validate=True)
    except (binascii.Error, ValueError):
        raise segclip.BadImage(f"{name}: the upload is damaged; try again") from None
    return studio.read(data, name)


def _numbers(values: Any, count: int) -> list[float]:
    if not isinstance(values, list) or len(values) != count:
        raise segclip.BadPrompt(f"expected {count} numbers, got {str(values)[:80]!r}")
    return [_number(value) for value in values]


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
        return float(value)
    raise segclip.BadPrompt(f"expected a number, got {str(value)[:40]!r}")
