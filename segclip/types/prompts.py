"""Spatial prompts: everything, one object by points, or one object per box.

Coordinates are pixels of the upright image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..errors import BadPrompt
from .masks import Array


@dataclass(frozen=True, eq=False)
class Everything:
    """Every object; the default prompt.

    inside: only objects that lie in one of these boxes, float32 (B, 4) xyxy pixels. without: only
    objects that cover none of these points, float32 (K, 2) pixels.
    """

    inside: Any = None
    without: Any = None

    def __post_init__(self) -> None:
        if self.inside is not None:
            object.__setattr__(self, "inside", Boxes(self.inside).xyxy)
        if self.without is not None:
            object.__setattr__(self, "without", Points(self.without).xy)

    def check(self, size: tuple[int, int]) -> None:
        """Raise BadPrompt if it exceeds an image of ``size`` (H, W)."""
        if self.inside is not None:
            _boxes_inside(self.inside, size)
        if self.without is not None:
            _points_inside(self.without, size)


@dataclass(frozen=True, eq=False)
class Points:
    """ONE object, by clicks and optionally a box or an earlier mask.

    xy: float32 (K, 2) pixels. labels: int32 (K,), 1 foreground, 0 background; default: all 1.
    box: float32 (4,) xyxy around the object. mask: float32 (h, w), a row of ``Proposals.logits``,
    an earlier result to refine. With a box or a mask, points may be empty.
    """

    xy: Any
    labels: Any = None
    box: Any = None
    mask: Any = None

    def __post_init__(self) -> None:
        alone = self.box is None and self.mask is None
        xy = _floats(self.xy, 2, "points", "(x, y) pairs such as [(620, 360)]", at_least=int(alone))
        labels = np.ones(len(xy)) if self.labels is None else np.asarray(self.labels)
        if labels.shape != (len(xy),) or not np.isin(labels, (0, 1)).all():
            raise BadPrompt(
                f"point labels must be one 0 or 1 for each of the {len(xy)} points, got "
                f"{self.labels!r}"
            )
        object.__setattr__(self, "xy", xy)
        object.__setattr__(self, "labels", labels.astype(np.int32))
        if self.box is not None:
            object.__setattr__(self, "box", _one_box(self.box))
        if self.mask is not None:
            object.__setattr__(self, "mask", _logits(self.mask))

    def check(self, size: tuple[int, int]) -> None:
        """Raise BadPrompt if it exceeds an image of ``size`` (H, W)."""
        _points_inside(self.xy, size)
        if self.box is not None:
            _boxes_inside(self.box[None], size)


@dataclass(frozen=True, eq=False)
class Boxes:
    """One object PER box; row i of the answer belongs to box i.

    xyxy: float32 (B, 4) pixels, x1 < x2 and y1 < y2.
    """

    xyxy: Any

    def __post_init__(self) -> None:
        xyxy = _floats(self.xyxy, 4, "boxes", "(x1, y1, x2, y2) rows such as [(10, 20, 200, 300)]")
        bad = (xyxy[:, 2:] <= xyxy[:, :2]).any(axis=1)
        if bad.any():
            raise BadPrompt(
                f"a box needs x1 < x2 and y1 < y2, got {xyxy[bad][0].tolist()}"
                f"{_if_width_and_height(xyxy[bad][0])}"
            )
        object.__setattr__(self, "xyxy", xyxy)

    def check(self, size: tuple[int, int]) -> None:
        """Raise BadPrompt if it exceeds an image of ``size`` (H, W)."""
        _boxes_inside(self.xyxy, size)


Prompt: TypeAlias = Everything | Points | Boxes


def place(
    points: Sequence[Any], labels: Sequence[Any], boxes: Sequence[Any], *, searching: bool
) -> Prompt:
    """Make a prompt from points, labels and boxes.

    searching: for texts, an example or everything, rather than cutting out what is at the place. A
    search is limited to the boxes and leaves out what background points cover; a foreground point
    is a click on one object all the same. points: (K, 2) pixels. labels: (K,), 1 foreground, 0
    background. boxes: (B, 4) xyxy pixels. Raises BadPrompt.
    """
    if len(points) and (any(labels) or not searching):
        return Points(points, labels, box=boxes or None)
    if boxes and not searching:
        return Boxes(boxes)
    return Everything(boxes or None, points or None)


def _floats(value: Any, width: int, noun: str, example: str, at_least: int = 1) -> Array:
    try:
        array = np.asarray(value, dtype=np.float32).reshape(-1, width)
    except (TypeError, ValueError):
        raise BadPrompt(f"{noun} must be {example}, got {value!r}") from None
    if len(array) < at_least or not np.isfinite(array).all():
        raise BadPrompt(f"{noun} must be finite and at least one: {example}; got {value!r}")
    return array


def _if_width_and_height(box: Array) -> str:
    """Return how to write a box whose last numbers may be its width and height."""
    x, y, width, height = box.tolist()
    if min(x, y) < 0 or min(width, height) <= 0:
        return ""
    return f"; if these are x, y, width and height, write {x:g},{y:g},{x + width:g},{y + height:g}"


def _one_box(value: Any) -> Array:
    xyxy = Boxes(value).xyxy
    if len(xyxy) != 1:
        raise BadPrompt(f"points select one object and take one box, got {len(xyxy)}")
    box: Array = xyxy[0]
    return box


def _logits(value: Any) -> Array:
    mask = np.asarray(value)
    if mask.ndim != 2 or 0 in mask.shape or mask.dtype.kind != "f" or not np.isfinite(mask).all():
        raise BadPrompt(
            f"mask must be finite logits (h, w), a row of Proposals.logits; got {mask.dtype} "
            f"{mask.shape}"
        )
    return mask.astype(np.float32)


def _points_inside(xy: Array, size: tuple[int, int]) -> None:
    height, width = size
    outside = (xy < 0).any(axis=1) | (xy >= (width, height)).any(axis=1)
    if outside.any():
        x, y = xy[outside][0].tolist()
        raise BadPrompt(
            f"point ({x:g}, {y:g}) lies outside the image; x must lie in [0, {width}) and y in [0, "
            f"{height})"
        )


def _boxes_inside(xyxy: Array, size: tuple[int, int]) -> None:
    height, width = size
    outside = (xyxy < 0).any(axis=1) | (xyxy > (width, height, width, height)).any(axis=1)
    if outside.any():
        raise BadPrompt(
            f"box {xyxy[outside][0].tolist()} leaves the image; x must lie in [0, {width}] and y "
            f"in [0, {height}]"
        )
