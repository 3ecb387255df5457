"""Remember what is done: one row a picture in SQLite, which survives being killed at any moment."""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STATES = ("matched", "empty", "failed")


@dataclass(frozen=True)
class Outcome:
    """Hold what became of one picture.

    name: of the item. content: SHA-256 of its bytes, "" where it cannot be read. stamp: its size and modification time
    in ns. asked: the digest of all else that changes the answer. state: one of STATES. files: what was written,
    relative to the output. record: exporters.to_record's, without its image. reason, trace: why it failed.
    """

    name: str
    content: str
    stamp: tuple[int, int]
    asked: str
    state: str
    files: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    trace: str = ""


class Journal:
    """Keep outcomes by name. Names are bytes: a file's name need not be text."""

    def __init__(self, path: Path, *, fixed: bool = False) -> None:
        """Open a file, or make it. fixed: only read, where nothing can be written, such as on a disc."""
        if fixed:
            self._table = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._table = sqlite3.connect(path, timeout=60)
        self._table.execute("PRAGMA journal_mode=WAL")
        self._table.execute("PRAGMA synchronous=NORMAL")
        self._table.execute(
            "CREATE TABLE IF NOT EXISTS outcomes (name BLOB PRIMARY KEY, content TEXT, size INTEGER, mtime INTEGER, "
            "asked TEXT, state TEXT, rest BLOB)"
        )
        self._table.commit()

    def close(self) -> None:
        """Close the file."""
        self._table.close()

    def put(self, outcome: Outcome) -> None:
        """Store an outcome in the place of the picture's former one; it is safe once this returns."""
        rest = {"files": outcome.files, "record": outcome.record, "reason": outcome.reason, "trace": outcome.trace}
        packed = zlib.compress(json.dumps(rest).encode(), 1)
        row = (os.fsencode(outcome.name), outcome.content, *outcome.stamp, outcome.asked, outcome.state, packed)
        with self._table:
            self._table.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def get(self, name: str) -> Outcome | None:
        """Give a picture's outcome."""
        found = self._table.execute("SELECT * FROM outcomes WHERE name = ?", (os.fsencode(name),)).fetchone()
        return _outcome(found) if found else None

    def mark(self, name: str) -> tuple[Any, ...] | None:
        """Give what tells a picture's outcome from another: its content, stamp and question."""
        query = "SELECT content, size, mtime, asked FROM outcomes WHERE name = ?"
        found = self._table.execute(query, (os.fsencode(name),)).fetchone()
        return tuple(found) if found else None

    def stored(self, size: int) -> list[str]:
        """Name the pictures of this many bytes: among them is the former name of one that was moved."""
        rows = self._table.execute("SELECT name FROM outcomes WHERE size = ? AND state <> 'failed'", (size,))
        return [os.fsdecode(name) for (name,) in rows.fetchall()]

    def forget(self, name: str) -> None:
        """Drop a picture's outcome."""
        with self._table:
            self._table.execute("DELETE FROM outcomes WHERE name = ?", (os.fsencode(name),))

    def names(self) -> Iterator[str]:
        """Give all names."""
        return (os.fsdecode(name) for (name,) in self._table.execute("SELECT name FROM outcomes").fetchall())

    def state(self, name: str) -> tuple[str, str] | None:
        """Give a picture's state and the digest it was asked with, without unpacking its record."""
        row = self._table.execute("SELECT state, asked FROM outcomes WHERE name = ?", (os.fsencode(name),)).fetchone()
        return (row[0], row[1]) if row else None


def _outcome(row: tuple[Any, ...]) -> Outcome:
    name, content, size, mtime, asked, state, packed = row
    rest = json.loads(zlib.decompress(packed))
    rest["files"] = tuple(rest["files"])
    return Outcome(os.fsdecode(name), content, (size, mtime), asked, state, **rest)
