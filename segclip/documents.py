"""Read JSON that somebody else wrote: whatever is wrong with the file is one error that names it."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any

from .errors import BadTable, SegclipError

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 60


def read(file: Path, kind: type[SegclipError] = BadTable) -> Any:
    """Return what a JSON file holds.

    Raises ``kind`` for a file that is not there, is a folder, a pipe or a device (which may never end), is not UTF-8,
    not JSON, or nested deeper than Python reads.
    """
    try:
        if not file.is_file():
            raise kind(f"{file}: {'not a regular file' if file.exists() else 'no such file'}; give a JSON file")
        return parse(file.read_bytes(), str(file), kind)
    except (OSError, MemoryError, ValueError) as error:  # ValueError: a name with a zero byte
        raise kind(f"{file}: cannot be read, {getattr(error, 'strerror', None) or error}") from None


def parse(data: bytes, label: str, kind: type[SegclipError] = BadTable) -> Any:
    """Return what JSON bytes hold; label: names them in errors, which are of ``kind``."""
    if not data.strip():
        raise kind(f"{label}: the file is empty; want JSON")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise kind(f"{label}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except RecursionError:
        raise kind(f"{label}: its JSON is nested too deep to be read") from None
    except ValueError as error:
        raise kind(f"{label}: not JSON ({error})") from None


def brief(value: Any) -> str:
    """Return a value of JSON, shortened and without control characters, for a message of one line."""
    return "null" if value is None else _brief.repr(value)
