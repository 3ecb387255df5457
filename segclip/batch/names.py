"""Name outputs apart from one another, on file systems that fold letters' case and accents too."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import PurePosixPath

from ..files.outputs import shortened

_LONGEST = 1500  # bytes of a path inside an output; systems take 4,096 of one from the root


def distinct(wanted: Mapping[str, str]) -> dict[str, str]:
    """Return a name for each key: the wanted one, with a piece of a hash where some would meet.

    The answer depends on the keys alone that meet, not on their order. No name is that of another
    key's after folding.
    """
    length, chosen = 8, dict(wanted)
    while len(meeting := _meeting(chosen)):
        for key in meeting:
            chosen[key] = _marked(wanted[key], sha256(os.fsencode(key)).hexdigest()[:length])
        length = min(2 * length, 64)
    return chosen


def fitting(path: str) -> str:
    """Return a relative path that file systems take, with room for what is appended to it.

    A long name is ``shortened``, and where the whole is too long, the folders are left out.
    """
    place = PurePosixPath(path)
    if len(os.fsencode(path)) > _LONGEST:
        return shortened(f"{place.stem}~{sha256(os.fsencode(path)).hexdigest()[:16]}{place.suffix}")
    return place.with_name(shortened(place.name)).as_posix()


def spelt(name: str) -> str:
    """Return a name as text: each byte that is no UTF-8 as a backslash, "udc" and its two
    digits.
    """
    return name.encode("utf-8", "backslashreplace").decode()


def folded(name: str) -> str:
    """Return what all names have in common that a file system may take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _meeting(names: Mapping[str, str]) -> list[str]:
    count = Counter(folded(name) for name in names.values())
    return [key for key, name in names.items() if count[folded(name)] > 1]


def _marked(name: str, mark: str) -> str:
    path = PurePosixPath(name)
    return path.with_name(f"{path.stem}~{mark}{path.suffix}").as_posix()
