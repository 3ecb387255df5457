"""Distinguish deleted images from temporarily unreachable ones: a stale mount, a missing disk."""

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
    """Check for images that are missing from a folder's listing."""

    def __init__(self, folder: Path, unreadable: Mapping[str, str]) -> None:
        """Start from a listing. unreadable: reasons by sub-folder that could not be listed."""
        self.folder = folder
        # by folder: None if deleted, "" if readable
        self._reasons: dict[str, str | None] = dict(unreadable)

    def why_lost(self, name: str) -> tuple[str, str] | None:
        """Return the unreachable place that holds an image, and why; None if it was deleted."""
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
        return None  # it exists, but is no longer an image


def _why_unlisted(folder: Path) -> str | None:
    """Return why a folder's images cannot be listed; an empty one may be an unused mount point."""
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return "" if folder.is_dir() else None
        with os.scandir(folder) as entries:
            return "" if next(entries, None) else _EMPTY
    except OSError as error:
        return None if error.errno in _GONE else error.strerror or str(error)


def why_closed(path: Path) -> str:
    """Return why a file cannot be opened; "" if it can be, or is no regular file."""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            with path.open("rb"):
                pass
    except OSError as error:
        return error.strerror or str(error)
    return ""


def report(lost: Iterable[tuple[str, str]], unreadable: Mapping[str, str]) -> tuple[str, ...]:
    """Return one line per unreachable place: how many indexed images it holds, and why."""
    counts = Counter(dict.fromkeys(unreadable.items(), 0))
    counts.update(lost)
    return tuple(
        f"{place} ({count} of the index): {reason}"
        for (place, reason), count in sorted(counts.items())
    )
