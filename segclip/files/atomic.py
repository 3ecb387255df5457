"""Write files so that neither a reader, a crash nor a power cut ever meets half of one.

A file is written under a temporary name in its own folder, synced to the disk, and renamed. A
rename is only on the disk once its folder is synced too; ``sync_folder`` does that, and writers of
many files may do it once per folder.
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

_PREFIX, _SUFFIX = (
    ".segclip-",
    ".part",
)  # of every temporary file, so that leftovers can be told from users' files


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the place of ``path`` when the block ends without an error.

    sync: wait until the bytes and the new name are on the disk; without, the caller syncs later.
    Raises NotWritable.
    """
    temporary = path.with_name(f"{_PREFIX}{uuid4().hex[:16]}{_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        raise NotWritable(f"{path}: cannot be written, {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # gone after the rename
            temporary.unlink()


def write(path: Path, data: bytes, *, sync: bool = True) -> Path:
    """Write bytes whole or not at all; return the path. Raises NotWritable."""
    with replacing(path, sync=sync) as file:
        file.write(data)
    return path


def sync_file(path: Path) -> None:
    """Wait until a file that is already there is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can (Windows cannot).
    Raises OSError.
    """
    if sys.platform == "win32":
        return
    try:
        sync_file(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network drives sync files alone
            raise


def is_leftover(path: Path) -> bool:
    """Recognise a temporary file that a killed process left behind."""
    return path.name.startswith(_PREFIX) and path.name.endswith(_SUFFIX)
