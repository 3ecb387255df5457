"""Names of things that begin with a position word, such as "top hat" or "upper jaw".

The word is part of the name there, or counts from the body's or the arrow's own point of view,
which the image's does not follow: a person's right hand is on the left of their portrait. Names
whose word does compare things in the image, such as "top shelf" or "upper bunk", are positions.
"""

from __future__ import annotations

import re

# what a body has a left and a right one of
_PAIRED = (
    "hand, arm, leg, foot, feet, eye, ear, wing, shoe, sock, glove, knee, elbow, shoulder, thumb, "
    "ankle, wrist, cheek, thigh, hip, eyebrow, nostril, lung, kidney, ventricle, atrium, brain, "
    "hemisphere"
)
# what signs, keys and brackets do, or are, in that direction
_DIRECTED = (
    "arrow, chevron, turn, turning, bend, curve, pointing, facing, leaning, handed, click, "
    "bracket, brace, parenthesis, quote, quotation mark, square bracket, curly bracket"
)
_FIELD = "field, fielder, winger, midfielder, bank"
_BODY = "jaw, lip, arm, leg, limb, back, body, bodies, eyelid, eyelash, torso, abdomen, thigh"
_CENTRE = "stage, console, field, forward, back, piece, punch, bit, divider, parting"
# by the word they begin with; a name's plural counts too
NAMES: dict[str, str] = {
    "left": f"{_PAIRED}, {_DIRECTED}, {_FIELD}, luggage, over, overs, angle bracket",
    "right": (f"{_PAIRED}, {_DIRECTED}, {_FIELD}, angle, anger bubble, triangle, whale, of way"),
    "left-hand": "drive",
    "right-hand": "drive",
    "top": "hat, gun, coat, knot, secret, brass, quark, scorer, model, view, loader, loading, down",
    "bottom": "bracket, line, feeder, quark, dollar",
    "upper": f"{_BODY}, case, class, crust",
    "lower": f"{_BODY}, case, class",
    "middle": "finger, toe, ear, school, age, east, eastern, class, name, child",
    "center": _CENTRE,
    "centre": _CENTRE,
    "central": "heating, station, park, bank, reservation, locking, processing unit, vacuum",
}
# a name that a longer one begins with, where the longer one is a position: "left back pocket"
_ONLY_ALONE = {"left": "back", "right": "back"}
# what a head ends in where "to the left" after it is a direction: "a dog looking to the left"
_DIRECTION = re.compile(
    r"(?:^|\s)(?:(?:point|fac|look|lean|turn|head|mov|go|walk|driv|fly|bend|tilt)ing"
    r"|running|turned|bent|tilted)$",
    re.IGNORECASE,
)
_BEGINNINGS = {
    word: re.compile(
        "(?:" + "|".join(map(re.escape, names.split(", "))) + r")(?:s|es)?(?!\w)", re.IGNORECASE
    )
    for word, names in NAMES.items()
}
_ALONE = {word: re.compile(f"(?:{name})s?$", re.IGNORECASE) for word, name in _ONLY_ALONE.items()}


def is_name(word: str, rest: str) -> bool:
    """Return whether a position word and the rest of the text begin with the name of a thing."""
    word, rest = word.lower(), rest.strip()
    tables = (_BEGINNINGS, _ALONE)
    return any(bool(table[word].match(rest)) for table in tables if word in table)


def is_direction(head: str) -> bool:
    """Return whether a head leaves "to the left" after it as a direction, not as a position."""
    return bool(_DIRECTION.search(head))
