"""Write files atomically: no reader, crash or power cut leaves or finds a partial file.

A file is written under a temporary name in its own folder, synced to disk, and renamed. The rename
is durable only once the folder is synced too: ``sync_folder`` does that, and writers of many files
may call it once per folder.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from ..errors import NotWritable

# of every temporary file, to distinguish leftovers from users' files
_PREFIX, _SUFFIX = ".segclip-", ".part"


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces ``path`` when the block ends without an error.

    sync: wait until the contents and the new name are on disk; if False, the caller syncs later.
    Raises NotWritable.
    """
    temporary = path.with_name(f"{_PREFIX}{uuid4().hex[:16]}{_SUFFIX}")
    try:
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
                file.flush()
                if sync:
                    # before the rename: else a power cut may leave the new name without contents
                    os.fsync(file.fileno())
            temporary.replace(path)
            if sync:
                sync_folder(path.parent)
    finally:
        with suppress(OSError):  # gone after the rename
            temporary.unlink()


@contextmanager
def writing_to(path: Path, hint: str = "") -> Iterator[None]:
    """Raise NotWritable, with the path, reason and ``hint``, for an OSError within the block."""
    try:
        yield
    except OSError as error:
        raise NotWritable(f"{path}: cannot be written, {error.strerror or error}{hint}") from error


def write(path: Path, data: bytes, *, sync: bool = True) -> Path:
    """Write a file atomically and return its path. Raises NotWritable."""
    with replacing(path, sync=sync) as file:
        file.write(data)
    return path


def sync_file(path: Path) -> None:
    """Flush an existing file to disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk; a no-op on Windows, which cannot. Raises OSError."""
    if sys.platform == "win32":
        return
    try:
        sync_file(folder)
    except OSError as error:
        # some network drives can only sync files
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def is_leftover(path: Path) -> bool:
    """Return whether a file is a temporary one left behind by a killed process."""
    return path.name.startswith(_PREFIX) and path.name.endswith(_SUFFIX)
