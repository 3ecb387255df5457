"""Journal of an index's embeddings, one row per image; records are validated and salvaged."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ..batch.journal import BESIDE, Journal, Outcome, salvage
from . import checked, reach

NAME = Path("journal") / "index.sqlite"  # inside an index
_PAGE = 4096  # bytes, SQLite's default
_PIXELS = 10**9  # of an image, at most


class Rows(Journal):
    """Outcomes by image of a folder; an invalid row counts as missing. Raises as ``Journal`` does.

    unreached: images that could not be opened, each with the reason; their former embeddings stay.
    """

    def __init__(self, path: Path, folder: Path, *, fixed: bool = False) -> None:
        """Open or create the file. fixed: open it read-only."""
        self.folder = folder
        self.unreached: dict[str, str] = {}
        super().__init__(path, fixed=fixed)

    def get(self, name: str) -> Outcome | None:
        """Return an image's outcome."""
        found = super().get(name)
        return found if found and (found.state == "failed" or is_record(found.record)) else None

    def put(self, outcome: Outcome) -> None:
        """Store an outcome, unless a known image cannot be opened now: that may be temporary."""
        if outcome.state == "failed" and not outcome.content:
            path = self.folder / outcome.name
            reason = outcome.why(path) if outcome.passing else reach.why_closed(path)
            former = self.get(outcome.name) if reason else None
            if former and former.state == "matched":
                self.unreached[outcome.name] = reason
                return
        super().put(outcome)

    def sync(self) -> None:
        """Sync every row to disk; until then a power cut may lose recent ones."""
        with self._plainly():
            self._table.execute("PRAGMA wal_checkpoint(FULL)")


def links(place: Path) -> list[Path]:
    """Return links among an index's journal files; SQLite would write through them."""
    folder = (place / NAME).parent
    return [path for path in (folder, *folder.glob("*")) if path.is_symlink()]


def is_record(record: dict[str, Any]) -> bool:
    """Return whether a record is valid: a journal may be damaged or untrusted."""
    size, dim, taken = record.get("size"), record.get("dim"), record.get("taken", "")
    quality, boxes, rle = (record.get(name) for name in ("quality", "boxes", "rle"))
    if not (checked.is_size(size) and size[0] * size[1] <= _PIXELS):
        return False
    if not (isinstance(quality, list) and isinstance(boxes, list) and isinstance(rle, list)):
        return False
    count = len(quality)
    return (
        type(dim) is int
        and 0 < dim <= checked.MOST_DIM
        and (taken is None or (type(taken) in (int, float) and abs(taken) < checked.LATEST))
        and 0 < count == len(boxes) == len(rle) + 1
        and all(isinstance(counts, str) and counts.isascii() for counts in rle)
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
    """Return whether a text encodes ``count`` finite float16 numbers."""
    if not isinstance(text, str):
        return False
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(packed) == 2 * count and bool(np.isfinite(np.frombuffer(packed, np.float16)).all())


def mend(path: Path, folder: Path) -> int:
    """Rebuild a damaged journal from its sound rows; return their number. Raises as ``Journal``."""
    # atomic.replacing cannot be used: SQLite opens the new file itself, by its name
    fresh = path.with_name("mended.sqlite")
    _remove(fresh, BESIDE)
    with closing(Rows(fresh, folder)) as journal:
        count = _copy_sound(path, journal)
    if not count:
        _replace_first_page(path, fresh)
        with closing(Rows(fresh, folder)) as journal:
            count = _copy_sound(path, journal)
    _remove(path, BESIDE[1:])  # else SQLite would apply them to the new file
    fresh.replace(path)
    return count


def _copy_sound(path: Path, journal: Rows) -> int:
    count = 0
    for outcome in salvage(path):
        if outcome.state == "failed" or is_record(outcome.record):
            journal.put(outcome)
            count += 1
    return count


def _replace_first_page(path: Path, fresh: Path) -> None:
    """Replace a lost first page, which holds the schema, by that of a new journal."""
    with fresh.open("rb") as file:
        page = bytearray(file.read(_PAGE))
    page[28:32] = (path.stat().st_size // _PAGE).to_bytes(4, "big")  # pages of the file
    with path.open("r+b") as file:
        file.write(page)


def _remove(path: Path, suffixes: Sequence[str]) -> None:
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
