"""Keep an index's embeddings, a row an image: a journal whose records are checked, and saved from a damaged one."""

from __future__ import annotations

import base64
import binascii
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..batch.journal import COLUMNS, Journal, Outcome, read_row
from . import reach, store

NAME = Path("journal") / "index.sqlite"  # inside an index
_FARTHEST = 100_000  # row numbers that are tried where rows cannot be read
_DIM = 1 << 16

log = logging.getLogger(__name__)


class Rows(Journal):
    """Keep what became of each image of a folder. ``Journal`` says what is raised; a row that is unsound counts as none.

    unreached: images that could not be opened, each with the reason; their former embeddings stay.
    """

    def __init__(self, path: Path, folder: Path, *, fixed: bool = False) -> None:
        """Open a file, or make it. fixed: only read."""
        self.folder = folder
        self.unreached: dict[str, str] = {}
        super().__init__(path, fixed=fixed)

    def get(self, name: str) -> Outcome | None:
        """Return an image's outcome."""
        found = super().get(name)
        return found if found and (found.state == "failed" or is_record(found.record)) else None

    def put(self, outcome: Outcome) -> None:
        """Store an outcome; not a failure to open an image that is known, for it may be there again tomorrow."""
        if outcome.state == "failed" and not outcome.content:
            reason = outcome.reason if outcome.passing else reach.why_closed(self.folder / outcome.name)
            former = self.get(outcome.name) if reason else None
            if former and former.state == "matched":
                self.unreached[outcome.name] = reason
                return
        super().put(outcome)


def is_record(record: dict[str, Any]) -> bool:
    """Decide whether a record is one of ``Embedder.keep``'s: a journal may be damaged, or received from elsewhere."""
    size, dim, taken = record.get("size"), record.get("dim"), record.get("taken")
    quality, boxes, rle = (record.get(name) for name in ("quality", "boxes", "rle"))
    if not store.is_size(size) or type(dim) is not int or not 0 < dim <= _DIM:
        return False
    if taken is not None and not (type(taken) in (int, float) and abs(taken) < 1e12):
        return False
    if not all(isinstance(column, list) for column in (quality, boxes, rle)):
        return False
    count = len(quality)
    return (
        0 < count == len(boxes) == len(rle) + 1
        and all(isinstance(counts, str) for counts in rle)
        and all(value is None or type(value) in (int, float) for value in quality)
        and all(_is_box(box, *size) for box in boxes)
        and _is_packed(record.get("embeddings"), count * dim)
    )


def _is_box(box: object, height: int, width: int) -> bool:
    if not isinstance(box, list) or [type(side) for side in box] != [int] * 4:
        return False
    x1, y1, x2, y2 = box
    return bool(0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height)


def _is_packed(text: object, count: int) -> bool:
    """Decide whether a text holds so many numbers of half precision."""
    if not isinstance(text, str):
        return False
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(packed) == 2 * count and bool(np.isfinite(np.frombuffer(packed, np.float16)).all())


def mend(path: Path, folder: Path) -> int:
    """Make a damaged journal anew of the rows that are sound; return how many those are. Raises as ``Journal``."""
    fresh, count = path.with_name("mended.sqlite"), 0
    _remove(fresh)
    with closing(Rows(fresh, folder)) as journal:
        for outcome in _readable(path):
            if outcome.state == "failed" or is_record(outcome.record):
                journal.put(outcome)
                count += 1
    for suffix in ("-wal", "-shm", "-journal"):  # of the damaged one, which would be taken for those of the new one
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    os.replace(fresh, path)
    return count


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _readable(path: Path) -> Iterator[Outcome]:
    """Read whatever rows a damaged journal still gives, one by one: where a page is lost, those behind it are not."""
    query = f"SELECT rowid, {', '.join(COLUMNS)} FROM outcomes WHERE rowid > ? ORDER BY rowid LIMIT 1"
    row, misses = 0, 0
    with closing(sqlite3.connect(path)) as table:
        with suppress(sqlite3.Error):
            table.execute("PRAGMA trusted_schema=OFF")
        while misses < _FARTHEST:
            try:
                found = table.execute(query, (row,)).fetchone()
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
                    return  # nothing of it can be read
                row, misses = row + 1, misses + 1
                continue
            if found is None:
                return
            row, misses = found[0], 0
            if outcome := read_row(found[1:]):
                yield outcome
