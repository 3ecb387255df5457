"""Tell images that are gone from those that cannot be reached for a while: a stale mount, a disk
that is not there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

_GONE = (errno.ENOENT, errno.ENOTDIR)
_EMPTY = "it is empty; is a disk not mounted?"


class Reach:
    """Look for images that a folder's listing lacks."""

    def __init__(self, folder: Path, unreadable: Mapping[str, str]) -> None:
        """Begin. unreadable: sub-folders that could not be listed, each with the reason."""
        self.folder = folder
        self._reasons: dict[str, str | None] = dict(
            unreadable
        )  # None for what is gone, "" for what is there

    def why_lost(self, name: str) -> tuple[str, str] | None:
        """Return what keeps an image from being reached, and why; None where it is gone for
        good.
        """
        parts = name.split("/")
        for depth in range(len(parts)):
            inner = "/".join(parts[:depth])
            if inner not in self._reasons:
                self._reasons[inner] = _why_unlisted(self.folder / inner)
            reason = self._reasons[inner]
            if reason is None:
                return None
            if reason:
                return inner or ".", reason
        try:
            os.lstat(self.folder / name)
        except OSError as error:
            return None if error.errno in _GONE else (name, error.strerror or str(error))
        return None  # it is there, and no image any more


def _why_unlisted(folder: Path) -> str | None:
    """Say why a folder's images cannot be listed: an empty one may be where a disk is mounted."""
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return "" if folder.is_dir() else None
        with os.scandir(folder) as entries:
            return "" if next(entries, None) else _EMPTY
    except OSError as error:
        return None if error.errno in _GONE else error.strerror or str(error)


def why_closed(path: Path) -> str:
    """Say why a file cannot be opened; "" where it can, or where it is no file."""
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            with path.open("rb"):
                pass
    except OSError as error:
        return error.strerror or str(error)
    return ""


def report(lost: Iterable[tuple[str, str]], unreadable: Mapping[str, str]) -> tuple[str, ...]:
    """Say what cannot be reached, a line a place: how many images of the index it holds, and
    why.
    """
    counts = Counter(dict.fromkeys(unreadable.items(), 0))
    counts.update(lost)
    return tuple(
        f"{place} ({count} of the index): {reason}"
        for (place, reason), count in sorted(counts.items())
    )
