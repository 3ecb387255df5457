"""Do what was done by hand in the browser; nothing it sends is taken on trust."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import segclip

from .state import Known, Studio, Work

MOST_POINTS = 100
_LARGEST = 1e9  # of a number: no image has as many pixels


def handle(studio: Studio, work: Work, event: Mapping[str, Any]) -> None:
    """Change a work as an event says. Raises BadPrompt for one that makes no sense, BadImage for a
    bad picture.
    """
    kind = event.get("kind")
    with work.lock:
        if kind == "point":
            if len(work.draft.points) >= MOST_POINTS:
                raise segclip.BadPrompt(f"{MOST_POINTS} points are all that one object may have")
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
            chosen = segclip.Selection(
                None if threshold is None else _number(threshold),
                None if top is None else int(_number(top)),
            )
            work.tune(chosen.threshold, chosen.top_k)
        elif kind == "file":
            work.open(Known(_picture(studio, event)))
        elif kind in ("undo", "clear", "everything"):
            getattr(work, kind)()
        else:
            raise segclip.BadPrompt(f"unknown event {str(kind)[:40]!r}")


def _inside(work: Work, event: Mapping[str, Any], names: tuple[str, str]) -> tuple[float, float]:
    x, y = (_number(event.get(name)) for name in names)
    segclip.Points([(x, y)]).check(work.image.size)
    return x, y


def _picture(studio: Studio, event: Mapping[str, Any]) -> segclip.Image:
    name = str(event.get("name") or "picture")[:200]
    try:
        data = base64.b64decode(str(event.get("content")), validate=True)
    except (binascii.Error, ValueError):
        raise segclip.BadImage(f"{name}: it arrived damaged; try again") from None
    return studio.read(data, name)


def _numbers(values: Any, count: int) -> list[float]:
    if not isinstance(values, list) or len(values) != count:
        raise segclip.BadPrompt(f"want {count} numbers, got {str(values)[:80]!r}")
    return [_number(value) for value in values]


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
        return float(value)
    raise segclip.BadPrompt(f"want a number, got {str(value)[:40]!r}")
