"""Choose distinct output names, also for file systems that fold case and accents."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import PurePosixPath

from ..files.outputs import folded, shortened

_LONGEST = 1500  # bytes of a path inside an output; systems allow 4,096 for an absolute path


def distinct(wanted: Mapping[str, str]) -> dict[str, str]:
    """Return a name for each key: the wanted one, plus part of a hash where names collide.

    The result depends only on the keys that collide, not on their order. No two names are equal
    after folding.
    """
    length, chosen = 8, dict(wanted)
    while colliding := _colliding(chosen):
        for key in colliding:
            chosen[key] = _marked(wanted[key], sha256(os.fsencode(key)).hexdigest()[:length])
        length = min(2 * length, 64)
    return chosen


def fitting(path: str) -> str:
    """Return a relative path short enough for file systems, with room for suffixes.

    A long name is ``shortened``; if the whole path is too long, its folders are dropped.
    """
    place = PurePosixPath(path)
    if len(os.fsencode(path)) > _LONGEST:
        return shortened(f"{place.stem}~{sha256(os.fsencode(path)).hexdigest()[:16]}{place.suffix}")
    return place.with_name(shortened(place.name)).as_posix()


def spelt(name: str) -> str:
    """Return a name as text: each byte outside UTF-8 as a backslash, "udc" and two hex digits."""
    return name.encode("utf-8", "backslashreplace").decode()


def _colliding(names: Mapping[str, str]) -> list[str]:
    count = Counter(folded(name) for name in names.values())
    return [key for key, name in names.items() if count[folded(name)] > 1]


def _marked(name: str, mark: str) -> str:
    path = PurePosixPath(name)
    return path.with_name(f"{path.stem}~{mark}{path.suffix}").as_posix()
