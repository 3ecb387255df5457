"""Keep downloads and the records of checked files in one folder, so that a file is hashed once and
not at every start.

A record is a small JSON of SHA-256 and what the file system said of the file then: beside a
downloaded file as ``NAME.json``, under ``checked/`` for files that live elsewhere. It saves hashing
what cannot run; of a pickle the bytes that are loaded are hashed, whatever a record says
(``weights.vouch``).
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

_TICK = 0.02  # seconds; file systems' clocks stand still for as long


@dataclass(frozen=True)
class Record:
    """Remember a file as it was when it was hashed: another file, or another content, has another
    inode or ctime.

    Both are 0, which no file has, in records of earlier versions: their SHA-256 is still expected,
    but hashed anew.
    """

    bytes: int
    mtime_ns: int
    sha256: str
    inode: int = 0
    ctime_ns: int = 0

    @classmethod
    def of(cls, path: Path, sha256: str) -> Record:
        """Describe a file as it is now."""
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, sha256, stat.st_ino, stat.st_ctime_ns)


def cache_folder() -> Path:
    """Give the folder: SEGCLIP_HOME, else ~/.cache/segclip (XDG_CACHE_HOME honoured)."""
    if chosen := os.environ.get("SEGCLIP_HOME"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segclip"


def first_time(name: str) -> bool:
    """Answer True once for each name; False from then on, and where that cannot be remembered."""
    path = cache_folder() / "once" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
    except OSError:
        return False
    return True


def hash_file(path: Path) -> hashlib._Hash:
    """Hash a file's bytes with SHA-256; the answer can be updated further. Raises WeightsMissing if
    unreadable.
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
    """Give a file's SHA-256: the recorded one while the file system says it is the file that was
    recorded.
    """
    record = recorded(path)
    if record and is_fresh(record, path):
        return record.sha256
    return hash_file(path).hexdigest()


def known_hashes(path: Path) -> str:
    """Name the files of a folder, or the file, with the SHA-256 of each."""
    files = sorted(part for part in path.iterdir() if part.is_file()) if path.is_dir() else [path]
    return " ".join(f"{file.name}:{known_sha256(file)}" for file in files)


def recorded(path: Path) -> Record | None:
    """Read the record of a file, None when there is none that can be read."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        record = Record(**json.loads(record_path(path).read_text("utf-8")))
        if isinstance(record.sha256, str):
            return record
    return None


def is_fresh(record: Record, path: Path) -> bool:
    """Tell whether a file is still the one, and as it was, when it was recorded."""
    return record == Record.of(path, record.sha256)


def remember(path: Path, sha256: str) -> None:
    """Record a file's SHA-256; a cache that can't be written only costs hashing again."""
    record = Record.of(path, sha256)
    if abs(time.time_ns() - record.ctime_ns) < _TICK * 1e9:
        time.sleep(_TICK)  # a change within the clock's tick would leave the time as it is recorded
    if recorded(path) != record:
        _write(path, record)


def expire(path: Path) -> None:
    """Make a file be hashed anew next time, keeping the SHA-256 recorded for it."""
    if record := recorded(path):
        _write(path, replace(record, mtime_ns=0))


def forget(path: Path) -> None:
    """Drop a file's record: the next file in its place may be another."""
    with suppress(OSError):
        record_path(path).unlink(missing_ok=True)


def _write(path: Path, record: Record) -> None:
    with suppress(NotWritable):
        atomic.write(record_path(path), f"{json.dumps(asdict(record), indent=2)}\n".encode())


def record_path(path: Path) -> Path:
    """Give the place of a file's record."""
    if cache_folder() in path.parents:
        return path.with_name(f"{path.name}.json")
    key = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    return cache_folder() / "checked" / f"{path.name}.{key}.json"
