"""Keep downloads and the records of checked files in one folder, so that a file is hashed once and not at every start.

A record is a small JSON of size, modification time and SHA-256: beside a downloaded file as ``NAME.json``, under
``checked/`` for files that live elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .errors import WeightsMissing


@dataclass(frozen=True)
class Record:
    """Remember a file as it was when it was hashed."""

    bytes: int
    mtime_ns: int
    sha256: str


def cache_folder() -> Path:
    """Give the folder: SEGCLIP_HOME, else ~/.cache/segclip (XDG_CACHE_HOME honoured)."""
    if chosen := os.environ.get("SEGCLIP_HOME"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segclip"


def hash_file(path: Path) -> hashlib._Hash:
    """Hash a file's bytes with SHA-256; the answer can be updated further. Raises WeightsMissing if unreadable."""
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                hasher.update(chunk)
    except OSError as error:
        raise WeightsMissing(f"cannot read {path}: {error}") from error
    return hasher


def known_sha256(path: Path) -> str:
    """Give a file's SHA-256: the recorded one while size and modification time are the recorded ones."""
    record = recorded(path)
    if record and is_fresh(record, path):
        return record.sha256
    return hash_file(path).hexdigest()


def recorded(path: Path) -> Record | None:
    """Read the record of a file, None when there is none that can be read."""
    with suppress(OSError, ValueError, TypeError):
        return Record(**json.loads(record_path(path).read_text("utf-8")))
    return None


def is_fresh(record: Record, path: Path) -> bool:
    """Tell whether a file still has the size and the time it was recorded with."""
    stat = path.stat()
    return (record.bytes, record.mtime_ns) == (stat.st_size, stat.st_mtime_ns)


def remember(path: Path, sha256: str) -> None:
    """Record a file's SHA-256; a cache that can't be written only costs hashing again."""
    stat = path.stat()
    _write(path, Record(stat.st_size, stat.st_mtime_ns, sha256))


def expire(path: Path) -> None:
    """Make a file be hashed anew next time, keeping the SHA-256 recorded for it."""
    if record := recorded(path):
        _write(path, replace(record, mtime_ns=0))


def _write(path: Path, record: Record) -> None:
    target, text = record_path(path), json.dumps(asdict(record), indent=2)
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    with suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(f"{text}\n", "utf-8")
        os.replace(temporary, target)


def record_path(path: Path) -> Path:
    """Give the place of a file's record."""
    if cache_folder() in path.parents:
        return path.with_name(f"{path.name}.json")
    key = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    return cache_folder() / "checked" / f"{path.name}.{key}.json"
