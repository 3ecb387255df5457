"""Read an index's files, and check that they are what was written."""

from __future__ import annotations

import json
import os
import stat
import zlib
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ..files import regular

LARGEST = 1 << 30  # px, of a side
LATEST = 10**12  # s since 1970
MOST_DIM = 1 << 16  # numbers of an embedding
_CHUNK = 1 << 22  # bytes read at a time


def is_inside(name: object) -> bool:
    """Return whether a value is the relative name, with "/", of a file inside a folder."""
    if not isinstance(name, str) or "\0" in name or {"", ".", ".."} & set(name.split("/")):
        return False
    if os.sep == "\\" and ("\\" in name or ":" in name):
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def is_size(size: object) -> TypeGuard[list[int]]:
    """Return whether a value is a valid size: [H, W] in px."""
    return (
        isinstance(size, list)
        and len(size) == 2
        and all(type(n) is int and 0 < n <= LARGEST for n in size)
    )


def read_bytes(path: Path) -> bytes:
    """Read a file of an index. Raises ValueError for a pipe, device or folder, which may block."""
    try:
        return regular.read(path)
    except regular.NotRegular as error:
        raise ValueError(error.strerror) from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises OSError, and ValueError for anything else."""
    try:
        data = json.loads(read_bytes(path).decode("utf-8"))
    except (RecursionError, MemoryError):
        raise ValueError("it is nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError("it is no JSON object")
    return data


def checksums(folder: Path) -> dict[str, list[int]]:
    """Return the size and the CRC-32 of every file of a folder but pictures.json, by name."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path != folder / "pictures.json"
    )
    return {
        path.relative_to(folder).as_posix(): [path.stat().st_size, _crc(path)] for path in files
    }


def damage(folder: Path, files: dict[str, list[int]], *, most: float = np.inf) -> str:
    """Return which of a folder's files differs from its ``checksums``; "" for none.

    most: bytes of a file, beyond which only its size is checked.
    """
    for name, (size, crc) in files.items():
        path = folder / name
        try:
            status = path.stat()
            sound = is_inside(name) and stat.S_ISREG(status.st_mode) and status.st_size == size
            if not sound or (size <= most and _crc(path) != crc):
                return f"{name} is not as it was written"
        except (OSError, ValueError) as error:
            return f"{name}: {getattr(error, 'strerror', None) or error}"
    return ""


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc
