"""Parse position and size words: "left mug", "second dog from the right", "cup above the laptop".

A text without such words is ranked unchanged, and so are names of things that begin with one, such
as "top hat".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

from ..errors import BadPrompt
from .compounds import is_direction, is_name
from .geometry import NTH, Half, Position, Relation

Phrase: TypeAlias = Position | Half | Relation

_WORDS: dict[str, tuple[str, ...]] = {
    "left": ("left", "leftmost", "left most", "left-most", "far left", "left-hand"),
    "right": ("right", "rightmost", "right most", "right-most", "far right", "right-hand"),
    "top": ("top", "topmost", "upper", "uppermost", "highest"),
    "bottom": ("bottom", "bottommost", "lower", "lowermost", "lowest"),
    "middle": ("middle", "center", "centre", "central"),
    "biggest": ("biggest", "largest"),
    "smallest": ("smallest", "tiniest", "littlest"),
}
for _side in ("left", "right"):
    _WORDS[_side] += (f"furthest {_side}", f"farthest {_side}")
_ORDINALS = {word: nth for nth, word in enumerate(NTH, 1)}
_ORDINALS |= {"1st": 1, "2nd": 2, "3rd": 3, "4th": 4, "5th": 5, "6th": 6, "7th": 7, "8th": 8}
_SIDES = {
    "left": ("left",),
    "right": ("right",),
    "top": ("top", "upper"),
    "bottom": ("bottom", "lower"),
}
_OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
_CORNERS = {
    f"{y} {x}": tuple(f"{a}{gap}{b}" for a in _SIDES[y] for b in _SIDES[x] for gap in (" ", "-"))
    for y in ("top", "bottom")
    for x in ("left", "right")
}
# "left bottom corner", only where a place alone is read: "the left bottom drawer" is left of others
_REVERSED = {
    key: tuple(f"{b}{gap}{a}" for a in _SIDES[y] for b in _SIDES[x] for gap in (" ", "-"))
    for key in _CORNERS
    for y, x in [key.split()]
}
_WORDS |= _CORNERS
_KEY = {
    word: key for table in (_WORDS, _REVERSED) for key, words in table.items() for word in words
}


def _any(words: Iterable[str]) -> str:
    """Return a pattern for any of the words; longer ones first, as "left" begins "leftmost"."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


def _spellings(*tables: dict[str, tuple[str, ...]]) -> str:
    return _any(word for table in tables for words in table.values() for word in words)


_SIZES = ("biggest", "smallest")
_EDGE = {key: _WORDS[key] for key in _SIDES}
_PLACES = _spellings({k: w for k, w in _WORDS.items() if k not in _SIZES}, _REVERSED)
_PARTS = _spellings(_SIDES, _CORNERS, _REVERSED)  # of which an image has halves and quarters
_NTH = _any(_ORDINALS)
_FRAME = r"(?:\s+of\s+(?:the\s+|this\s+)?(?:image|picture|photo|photograph|frame|screen))"
_HAND = r"(?:[\s-]hand)?"  # "the left-hand side"
_BORDER = rf"(?:{_HAND}\s+(?:side|edge|border|corner|end))"
_THAT = r"(?:(?:that|which|who)(?:\s+is|\s+are|'s)\s+)?"
_AT = r"(?:on|at|in|near(?:est)?(?:\s+to)?|close(?:r|st)?\s+to|along|by|(?P<to>to|towards?))"
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
_ARTICLES = ("the", "a", "an")


def _compiled(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)


# a place and nothing that lies there: the bottom left, in the left half, the top of the image
_NOWHERE = _compiled(
    rf"^(?:{_AT}\s+)?(?:the\s+)?(?:{_spellings(_CORNERS)})(?:{_BORDER}|\s+(?:half|quarter))?"
    rf"{_FRAME}?$",
    rf"^(?:{_AT}\s+)?(?:the\s+)?(?:{_spellings(_SIDES)})(?:{_HAND}\s+(?:side|half|edge|corner))"
    rf"{_FRAME}?$",
    rf"^(?:{_AT}\s+)?(?:the\s+)?(?:{_PLACES}){_FRAME}$",
)
# the side of a thing, not of the image: the left side of the car
_SIDE_OF_A_THING = re.compile(
    rf"^(?:the\s+)?(?:{_PLACES}){_HAND}\s+(?:side|half|quarter|part|edge|border|corner|end)\s+of\b",
    re.IGNORECASE,
)
_BEFORE = _compiled(
    # second mug from the left; mug, second from the left
    rf"^(?:the\s+)?(?P<nth>{_NTH})(?:\s+(?P<head>.+?))?\s+from\s+(?:the\s+)?"
    rf"(?P<word>{_spellings(_EDGE)}){_BORDER}?$",
    rf"^(?P<head>.+?),?\s+(?:the\s+)?(?P<nth>{_NTH})\s+from\s+(?:the\s+)?"
    rf"(?P<word>{_spellings(_EDGE)}){_BORDER}?$",
    # the bottom-left corner mug
    rf"^(?:the\s+)?(?P<word>{_spellings(_CORNERS)}){_HAND}\s+corner\s+(?P<head>.+)$",
)
# the (second) biggest dog; the leftmost mug
_ADJECTIVE = re.compile(
    rf"^(?:the\s+)?(?:(?P<nth>{_NTH})\s+)?(?P<word>{_spellings(_WORDS)})\s+(?P<rest>"
    r"(?:of\s+the\s+)?(?P<head>.+))$",
    re.IGNORECASE,
)
# mugs in the left half, mug on the right-hand side of the image, star in the top left quarter
_HALF = re.compile(
    rf"^(?P<head>.+?),?\s+{_THAT}{_AT}\s+the\s+(?P<word>{_PARTS}){_HAND}\s+"
    rf"(?:side|half|quarter|quadrant|part|portion){_FRAME}?$",
    re.IGNORECASE,
)
_AFTER = _compiled(
    # the mug furthest to the left, the mug furthest from the left edge
    rf"^(?P<head>.+?),?\s+{_THAT}f[ua]rthest\s+to(?:wards?)?\s+the\s+(?P<word>left|right|top|bottom)"
    rf"{_BORDER}?{_FRAME}?$",
    rf"^(?P<head>.+?),?\s+{_THAT}f[ua]rthest\s+(?:away\s+)?from\s+the\s+"
    rf"(?P<opposite>left|right|top|bottom){_BORDER}?{_FRAME}?$",
    # the mug on the left, the cup at the top, the star in the bottom-left corner
    rf"^(?P<head>.+?),?\s+{_THAT}{_AT}\s+the\s+(?:very\s+)?(?P<word>{_PLACES}){_BORDER}?{_FRAME}?$",
)


def parse(text: str) -> Phrase | None:
    """Find position or size words in a text; None if there are none.

    Raises BadPrompt when the text holds nothing else.
    """
    text = text.strip()
    if any(pattern.match(text) for pattern in _NOWHERE):
        raise _no_object(text)
    if _SIDE_OF_A_THING.match(text):
        return None
    return _position(text) or _half(text) or _after(text) or _relation(text)


def nouns(text: str) -> tuple[str, ...]:
    """Return the objects a text names, without position or size words: the head, then anchors."""
    phrase = parse(text)
    if phrase is None:
        return (text,)
    return nouns(phrase.head) + (nouns(phrase.anchor) if isinstance(phrase, Relation) else ())


def _position(text: str) -> Position | None:
    """Parse an ordinal, or a position or size word before its object."""
    for pattern in (*_BEFORE, _ADJECTIVE):
        match = pattern.match(text)
        if match is None:
            continue
        found = match.groupdict()
        if not found["head"]:
            raise _no_object(text)
        if "rest" in found and is_name(found["word"], found["rest"]):
            continue
        nth = _ORDINALS[found["nth"].lower()] if found.get("nth") else 1
        return Position(_bare(found["head"]), _key(found["word"]), nth)
    return None


def _half(text: str) -> Half | None:
    match = _HALF.match(text)
    if match is None or _is_direction(match):
        return None
    return Half(_bare(match["head"]), _key(match["word"]))


def _after(text: str) -> Position | None:
    """Parse a place after its object."""
    for pattern in _AFTER:
        match = pattern.match(text)
        if match is None or _is_direction(match):
            continue
        found = match.groupdict()
        opposite = found.get("opposite")
        key = _OPPOSITE[opposite.lower()] if opposite else _key(found["word"])
        return Position(_bare(found["head"]), key)
    return None


def _relation(text: str) -> Relation | None:
    related = [
        (match.start("anchor"), key, match)
        for key, pattern in _RELATED
        if (match := pattern.match(text)) and match["head"].lower() not in _ARTICLES
    ]
    if not related:
        return None
    # "a mug left of a box under the table": the first relation binds last
    _, key, match = min(related, key=lambda candidate: candidate[0])
    return Relation(_bare(match["head"]), key, _bare(match["anchor"]))


def _is_direction(match: re.Match[str]) -> bool:
    return bool(match.groupdict().get("to")) and is_direction(match["head"])


def _key(word: str) -> str:
    return _KEY[" ".join(word.lower().split())]


def _no_object(text: str) -> BadPrompt:
    return BadPrompt(
        f"{text!r} says where but not what; say for example 'second mug from the left'"
    )


def _bare(text: str) -> str:
    return text.removeprefix("the ").removeprefix("The ")
