"""Parse spatial and size words: "left mug", "second dog from the right", "cup above the laptop".

A text without such words is ranked unchanged. The rules are the superlatives and relations of
ReCLIP (Subramanian et al. 2022, https://arxiv.org/abs/2204.05991), applied exactly to the regions
that match the rest of the text, plus ordinals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import BadPrompt
from ..types import Array, Masks

_WORDS: dict[str, tuple[str, ...]] = {
    "left": ("left", "leftmost", "left most", "left-most", "far left"),
    "right": ("right", "rightmost", "right most", "right-most", "far right"),
    "top": ("top", "topmost", "upper", "uppermost", "highest"),
    "bottom": ("bottom", "bottommost", "lower", "lowermost", "lowest"),
    "middle": ("middle", "center", "centre", "central"),
    "biggest": ("biggest", "largest"),
    "smallest": ("smallest", "tiniest", "littlest"),
}
_ORDINALS = {
    "first": 1,
    "second": 2,
    "third": 3,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
}
_ORDINALS |= {"1st": 1, "2nd": 2, "3rd": 3, "4th": 4, "5th": 5, "6th": 6, "7th": 7, "8th": 8}
_NAMES = (
    "top hat",
    "left luggage",
    "right angle",
    "right anger bubble",
    "middle finger",
    "bottom bracket",
)
_PLURAL = re.compile(r"[^sui]s$", re.IGNORECASE)  # apples, not glass, bus or iris
_SAME = 0.5  # minimum IoU at which two regions are the same object
# nouns with a left and a right kind: "the right hand" is an object, not a position
_HANDED = {
    "hand",
    "arm",
    "leg",
    "foot",
    "eye",
    "ear",
    "wing",
    "shoe",
    "sock",
    "glove",
}
_SIDES = {
    "top": ("top", "upper"),
    "bottom": ("bottom", "lower"),
    "left": ("left",),
    "right": ("right",),
}
_WORDS |= {
    f"{y} {x}": tuple(f"{a}{gap}{b}" for a in _SIDES[y] for b in _SIDES[x] for gap in (" ", "-"))
    for y in ("top", "bottom")
    for x in ("left", "right")
}
_KEY = {word: key for key, words in _WORDS.items() for word in words}


def _any(words: Iterable[str]) -> str:
    """Return a pattern for any of the words; longer ones first, as "left" begins "leftmost"."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_ENDS = _any(word for key in _SIDES for word in _WORDS[key])
_PLACES = _any(word for key in _WORDS if key not in ("biggest", "smallest") for word in _WORDS[key])
_NTH = _any(_ORDINALS)
_FRAME = r"(?:\s+of\s+(?:the\s+|this\s+)?(?:image|picture|photo|photograph|frame|screen))"
_RELATIONS = {
    "left": r"(?:(?:to|on)\s+the\s+)?left(?:\s+side)?\s+of",
    "right": r"(?:(?:to|on)\s+the\s+)?right(?:\s+side)?\s+of",
    "above": r"above",
    "below": r"below|under|underneath|beneath",
    "near": r"next\s+to|beside|near(?:est)?(?:\s+to)?|closest?\s+to",
    "bigger": r"(?:bigger|larger)\s+than",
    "smaller": r"smaller\s+than",
}
_RELATED = tuple(
    (
        key,
        re.compile(
            rf"^(?P<head>.+?),?\s+(?:(?:that|which|who)(?:\s+is|'s)\s+)?(?:{words})\s+(?P<anchor>.+)$",
            re.IGNORECASE,
        ),
    )
    for key, words in _RELATIONS.items()
)
# keys of _WORDS by which relations compare, where they differ
_MEASURES = {"above": "top", "below": "bottom", "bigger": "biggest", "smaller": "smallest"}
_RELATION_WORDS = {
    "left": "left of",
    "right": "right of",
    "near": "nearest to",
    "bigger": "bigger than",
    "smaller": "smaller than",
}
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # second mug from the left; mug, second from the left
        rf"^(?:the\s+)?(?P<nth>{_NTH})(?:\s+(?P<head>.+?))?\s+from\s+(?:the\s+)?(?P<word>{_ENDS})$",
        rf"^(?P<head>.+?),?\s+(?:the\s+)?(?P<nth>{_NTH})\s+from\s+(?:the\s+)?(?P<word>{_ENDS})$",
        # the (second) biggest dog; the leftmost mug
        rf"^(?:the\s+)?(?:(?P<nth>{_NTH})\s+)?(?P<word>{_any(_KEY)})\s+(?:of\s+the\s+)?(?P<head>.+)$",
        # the mug on the left, the cup at the top, the star in the middle
        rf"^(?P<head>.+?),?\s+(?:on|at|in|to|towards?)\s+the\s+(?:very\s+)?(?P<word>{_PLACES})(?:\s+side)?{_FRAME}?$",
    )
)


@dataclass(frozen=True)
class Position:
    """A position or size that a text asks for.

    head: the text without it. key: a key of _WORDS, such as left, top right or biggest. nth: rank
    by that key, from 1.
    """

    head: str
    key: str
    nth: int = 1

    def choose(self, masks: Masks) -> Array:
        """Return the matching row: int64 (1,), or (0,) when there are fewer than ``nth`` masks."""
        order = np.argsort(_measure(self.key, masks), kind="stable")
        return order[self.nth - 1 : self.nth]

    def reason(self, count: int) -> str:
        """Describe why a region was chosen among ``count``."""
        # the first of its spellings: "second", not "2nd"
        word = next(word for word, number in _ORDINALS.items() if number == self.nth)
        nth = "" if self.nth == 1 else f"{word} "
        if self.key in ("biggest", "smallest"):
            place = self.key
        elif self.key in _SIDES:
            place = f"from the {self.key}" if nth else f"{self.key}most"
        else:
            place = f"nearest to the {self.key}"
        return f"{nth}{place} of {count} found for {self.head!r}"


@dataclass(frozen=True)
class Relation:
    """A relation between two objects that a text asks for: a key of _RELATIONS.

    head: the object to find. anchor: the reference object. Either may contain position or size
    words of its own.
    """

    head: str
    key: str
    anchor: str

    def choose(self, masks: Masks, anchors: Masks) -> Array:
        """Return the rows for which the relation holds, in their order: int64 (R,).

        masks, anchors: the matches of head and anchor, most probable first. Only the first anchor
        counts, or for "near" the nearest one. Positions are compared by centroids, sizes by areas,
        and nearness by the gap between boxes.
        """
        if not len(masks) or not len(anchors):
            return np.zeros(0, np.int64)
        other = masks.iou(anchors) <= _SAME  # (N, M) an object is not its own anchor
        if self.key == "near":
            gaps = np.where(other, _gaps(masks, anchors), np.inf).min(axis=1)
            rows = np.argsort(gaps, kind="stable")
            nearest: Array = rows[np.isfinite(gaps[rows])][:1]
            return nearest
        key = _MEASURES.get(self.key, self.key)
        values, limits = _measure(key, masks), _measure(key, anchors)
        return np.flatnonzero((values < limits[0]) & other[:, 0])

    @property
    def plural(self) -> bool:
        """Whether the head is plural, so that several objects may match."""
        return bool(_PLURAL.search(self.head))

    def reason(self, kept: int, count: int, anchors: int) -> str:
        """Describe why ``kept`` of ``count`` regions were chosen by the ``anchors`` found."""
        relation = f"{_RELATION_WORDS.get(self.key, self.key)} {self.anchor!r}"
        if not anchors:
            return (
                f"nothing was found for {self.anchor!r}, so none of {count} found for "
                f"{self.head!r} can be {relation}"
            )
        return f"{kept or 'none'} of {count} found for {self.head!r}: {relation}"


def parse(text: str) -> Position | Relation | None:
    """Find position or size words in a text; None if there are none.

    Raises BadPrompt when the text holds nothing else.
    """
    text = text.strip()
    if text.lower().removeprefix("the ").removeprefix("a ").startswith(_NAMES):
        return None
    for pattern in _PATTERNS:
        if match := pattern.match(text):
            found = match.groupdict()
            if not found["head"]:
                raise BadPrompt(
                    f"{text!r} says where but not what; say for example 'second mug from the left'"
                )
            head = _bare(found["head"])
            key = _KEY[found["word"].lower()]
            if key in ("left", "right") and head.split()[0].lower() in _HANDED:
                return None
            return Position(head, key, _ORDINALS[found["nth"].lower()] if found.get("nth") else 1)
    related = [
        (match.start("anchor"), key, match)
        for key, pattern in _RELATED
        if (match := pattern.match(text))
    ]
    if not related:
        return None
    # "a mug left of a box under the table": the first relation binds last
    _, key, match = min(related, key=lambda candidate: candidate[0])
    return Relation(_bare(match["head"]), key, _bare(match["anchor"]))


def nouns(text: str) -> tuple[str, ...]:
    """Return the objects a text names, without position or size words: the head, then anchors."""
    phrase = parse(text)
    if phrase is None:
        return (text,)
    return nouns(phrase.head) + (nouns(phrase.anchor) if isinstance(phrase, Relation) else ())


def _bare(text: str) -> str:
    return text.removeprefix("the ").removeprefix("The ")


def _gaps(masks: Masks, others: Masks) -> Array:
    """Return the pairwise gap of boxes in pixels, ties broken by centroids: float64 (N, M)."""
    a, b = masks.boxes.astype(np.float64)[:, None], others.boxes.astype(np.float64)[None]
    apart = np.maximum(0, np.maximum(a[..., :2] - b[..., 2:], b[..., :2] - a[..., 2:]))
    centres = _centres(masks)[:, None] - _centres(others)[None]
    gaps: Array = np.hypot(*np.moveaxis(apart, -1, 0)) + 1e-3 * np.hypot(
        *np.moveaxis(centres, -1, 0)
    )
    return gaps


def _measure(key: str, masks: Masks) -> Array:
    """Return the sort value of each mask for the key, ascending: float64 (N,)."""
    if key in ("biggest", "smallest"):
        areas: Array = masks.areas.astype(np.float64)
        return -areas if key == "biggest" else areas
    height, width = masks.size
    x, y = (_centres(masks) / (width, height)).T
    if key == "middle":
        distance: Array = np.hypot(x - 0.5, y - 0.5)
        return distance
    away = {"left": x, "right": -x, "top": y, "bottom": -y}
    total: Array = sum((away[side] for side in key.split()), np.zeros(len(masks)))
    return total


def _centres(masks: Masks) -> Array:
    """Return each mask's centroid (x, y) in pixels: float64 (N, 2)."""
    centres = np.zeros((len(masks), 2))
    for row, bitmap in enumerate(masks.bitmaps):
        if bitmap.any():
            ys, xs = np.nonzero(bitmap)
            centres[row] = masks.boxes[row, :2] + (xs.mean() + 0.5, ys.mean() + 0.5)
    return centres
