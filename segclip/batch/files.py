"""Identify the files of a run by content and stamp, and sync them to disk."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

from ..errors import NotWritable
from ..files import atomic, regular
from .journal import Staged, Stamp

LINK = "link "  # before the SHA-256 of where a link leads


def describe(aside: Path, path: str) -> Staged:
    """Describe a staged file. Raises NotWritable."""
    try:
        return Staged(path, str(aside), aside.lstat().st_size, _digest(aside))
    except OSError as error:
        raise NotWritable(f"{aside}: cannot be read back, {error.strerror or error}") from error


def sync_staged(aside: Path) -> None:
    """Sync a staged file to disk; a link is synced with its folder.

    Raises NotWritable.
    """
    with atomic.writing_to(aside):
        if not aside.is_symlink():
            atomic.sync_file(aside)


def stamp_of(path: Path) -> Stamp:
    """Return a file's size, modification and change times in ns, and inode; zeros if missing.

    A replacement of the same size and modification time differs in inode or change time.
    """
    try:
        return _stamp(path.stat())
    except (OSError, ValueError):
        return 0, 0, 0, 0


def stamp_of_link(path: Path) -> Stamp:
    """Return the stamp of a file, or of a link itself. Raises OSError."""
    return _stamp(path.lstat())


def stamp_of_placed(path: Path) -> Stamp:
    """Return the stamp of a file that is there. Raises NotWritable."""
    try:
        return stamp_of_link(path)
    except OSError as error:
        raise NotWritable(f"{path}: {error.strerror or error}") from error


def is_same(path: Path, size: int, digest: str) -> bool:
    """Return whether a path is a file or link with this size and digest."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            return False
        return status.st_size == size and _digest(path) == digest
    except OSError:
        return False


def is_torn(path: Path, whole: Path | None) -> bool:
    """Return whether a file is empty, zeros, or a prefix of another, as after a power cut.

    A file that ends with a complete line counts as edited by hand.
    """
    end = b""
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        other = stack.enter_context(whole.open("rb")) if whole and not whole.is_symlink() else None
        while block := file.read(2**20):
            end = block.rstrip(b"\0")
            if not (other.read(len(block)) if other else b"").startswith(end):
                return False
    return not end.endswith(b"\n")


def is_short_of_room(error: BaseException | None) -> bool:
    """Return whether an error stops all writing, as a file name too long does not."""
    of_one_file = (
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.EISDIR,
        errno.EINVAL,
        errno.EILSEQ,
    )
    return isinstance(error, OSError) and error.errno not in of_one_file


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _digest(path: Path) -> str:
    if path.is_symlink():
        return LINK + sha256(os.fsencode(os.readlink(path))).hexdigest()
    return regular.digest(path)
