"""Manage the cache folder: downloads, and hash records that save rehashing files at every start.

A record is a small JSON file with the SHA-256 and the file's metadata when hashed: ``NAME.json``
beside a downloaded file, under ``checked/`` for files elsewhere. Records serve only files that
cannot run code; the loaded bytes of a pickle are always hashed (``weights.vouch``).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..errors import NotWritable, Unsupported, WeightsMissing
from ..files import atomic
from .reading import open_file

_TICK = 0.02  # s; resolution of file system timestamps


@dataclass(frozen=True)
class Record:
    """A file's metadata when hashed; another file or content has another inode or ctime.

    Both are 0, which no file has, in records of earlier versions: their SHA-256 is still expected,
    but the file is rehashed.
    """

    bytes: int
    mtime_ns: int
    sha256: str
    inode: int = 0
    ctime_ns: int = 0

    @classmethod
    def of(cls, path: Path, sha256: str) -> Record:
        """Return the record of a file as it is now."""
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, sha256, stat.st_ino, stat.st_ctime_ns)


def cache_folder() -> Path:
    """Return the cache folder: SEGCLIP_HOME, else ~/.cache/segclip (or in XDG_CACHE_HOME)."""
    if chosen := os.environ.get("SEGCLIP_HOME"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segclip"


def first_time(name: str) -> bool:
    """Return True on the first call for a name, else False; also if that cannot be recorded."""
    path = cache_folder() / "once" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
    except OSError:
        return False
    return True


def hash_file(path: Path) -> hashlib._Hash:
    """Return the SHA-256 hasher of a file's bytes, which can be updated further.

    Raises WeightsMissing if unreadable.
    """
    hasher = hashlib.sha256()
    try:
        with open_file(path) as file:
            while chunk := file.read(1 << 20):
                hasher.update(chunk)
    except (OSError, Unsupported) as error:
        raise WeightsMissing(f"cannot read {path}: {error}") from error
    return hasher


def known_sha256(path: Path) -> str:
    """Return a file's SHA-256: the recorded one if the file's metadata are unchanged."""
    record = recorded(path)
    if record and is_fresh(record, path):
        return record.sha256
    return hash_file(path).hexdigest()


def known_hashes(path: Path) -> str:
    """Return "name:SHA-256" of each file of a folder, or of a file, joined by spaces."""
    files = sorted(part for part in path.iterdir() if part.is_file()) if path.is_dir() else [path]
    return " ".join(f"{file.name}:{known_sha256(file)}" for file in files)


def recorded(path: Path) -> Record | None:
    """Return the record of a file, None if there is no valid one."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        record = Record(**json.loads(record_path(path).read_text("utf-8")))
        if isinstance(record.sha256, str):
            return record
    return None


def is_fresh(record: Record, path: Path) -> bool:
    """Return whether a file is the recorded one, unchanged."""
    return record == Record.of(path, record.sha256)


def remember(path: Path, sha256: str) -> None:
    """Record a file's SHA-256; if the cache is not writable, the file is rehashed next time."""
    record = Record.of(path, sha256)
    if abs(time.time_ns() - record.ctime_ns) < _TICK * 1e9:
        time.sleep(_TICK)  # a change within the same tick would keep the recorded timestamp
    if recorded(path) != record:
        _write(path, record)


def expire(path: Path) -> None:
    """Force rehashing of a file next time, keeping its recorded SHA-256."""
    if record := recorded(path):
        _write(path, replace(record, mtime_ns=0))


def forget(path: Path) -> None:
    """Delete a file's record, as the next file at its path may be another."""
    with suppress(OSError):
        record_path(path).unlink(missing_ok=True)


def _write(path: Path, record: Record) -> None:
    with suppress(NotWritable):
        atomic.write(record_path(path), f"{json.dumps(asdict(record), indent=2)}\n".encode())


def record_path(path: Path) -> Path:
    """Return the path of a file's record."""
    if cache_folder() in path.parents:
        return path.with_name(f"{path.name}.json")
    key = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    return cache_folder() / "checked" / f"{path.name}.{key}.json"
