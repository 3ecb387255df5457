"""Ledger of an output's files: no other file is overwritten, and none of them is left behind.

A file is entered before it is moved into place. Entries are also appended to a plain list, from
which a damaged journal is rebuilt.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..files import atomic, regular
from ..files.formats import PER_IMAGE
from .journal import Journal, Outcome, Stamp

RUN = ""  # owner of the files of a run as a whole; an image's files are owned by its name
YOLO = "yolo"
RUN_FILES = (
    "coco.json",
    "coco-polygons.json",
    "regions.jsonl",
    "regions.parquet",
    "failures.jsonl",
    "summary.json",
    "contact_sheet.png",
)
_NEVER: Stamp = (0, 0, 0, 0)
MOST = 1 << 28  # bytes of a list read at most
_LONGEST = 1 << 16  # bytes of one of its lines read at most
_FILE = "owner BLOB, size INTEGER, sha256 TEXT, mtime INTEGER, ctime INTEGER, inode INTEGER"


@dataclass(frozen=True)
class Kept:
    """Entry of a file of the output; ``stamp`` is set once it is in place.

    path, size, sha256: as in ``Staged``. owner: an image's name, or RUN.
    """

    path: str
    owner: str
    size: int
    sha256: str
    stamp: Stamp = _NEVER


def is_ours(path: str) -> bool:
    """Return whether segclip writes to a path relative to an output; journals are not trusted."""
    parts = PurePosixPath(path).parts
    plain = path == "/".join(parts) and "\0" not in path and not {"..", "."} & set(parts)
    return plain and (
        path in RUN_FILES or (len(parts) > 1 and (parts[0] in PER_IMAGE or parts[0] == YOLO))
    )


class Ledger(Journal):
    """Outcomes and files of an output. Raises as ``Journal`` does."""

    _mode = "TRUNCATE"  # unlike WAL, it works on network file systems
    _tables = ("outcomes", "files", "former", "facts")

    def __init__(self, path: Path, entries: Path) -> None:
        """Open a journal, or create it from the list of entries if there is one."""
        self._entries = entries
        self._changed = False
        super().__init__(path)

    def intend(self, files: Sequence[Kept], names: Iterable[str]) -> None:
        """Enter files about to be moved into place; drop outcomes that become invalid."""
        self._append(files)
        with self.change():
            self._expect(files)
            self._delete(names)

    def confirm(
        self, files: Iterable[Kept], outcomes: Iterable[Outcome], gone: Iterable[str]
    ) -> None:
        """Enter files now in place and their outcomes; drop files that are gone."""
        placed = list(files)
        with self.change():
            self._enter(placed)
            paths = [(os.fsencode(kept.path),) for kept in placed]
            self._table.executemany("DELETE FROM former WHERE path = ?", paths)
            self._leave_out(gone)
            for outcome in outcomes:
                self.store(outcome)

    def drop(self, names: Sequence[str], gone: Iterable[str]) -> None:
        """Drop images no longer in the run, and their files."""
        with self.change():
            self._leave_out(gone)
            self._delete(names)

    def restamp(
        self, names: Sequence[tuple[str, Stamp]], files: Sequence[tuple[str, Stamp]]
    ) -> None:
        """Update the stamps of images and files that were touched, but are unchanged."""
        update = "UPDATE {} SET size = ?, mtime = ?, ctime = ?, inode = ? WHERE {} = ?"
        with self.change():
            for table, key, rows in (("outcomes", "name", names), ("files", "path", files)):
                self._table.executemany(
                    update.format(table, key), [(*stamp, os.fsencode(name)) for name, stamp in rows]
                )

    def find(self, path: str) -> Kept | None:
        """Return a file's entry."""
        return next(self._select("WHERE path = ?", os.fsencode(path)), None)

    def possible(self, path: str) -> list[Kept]:
        """Return all entries that may describe the file at a path.

        Until a new file is confirmed, a killed run may have left it or its predecessor.
        """
        where, name = "WHERE path = ?", os.fsencode(path)
        return [*self._select(where, name), *self._select(where, name, table="former")]

    def files(self, owner: str) -> list[Kept]:
        """Return the files of an image, or of RUN."""
        return list(self._select("WHERE owner = ? ORDER BY path", os.fsencode(owner)))

    def owners(self) -> list[str]:
        """Return the owners of all files."""
        return self._names("SELECT DISTINCT owner FROM files")

    @property
    def run(self) -> str:
        """The digest of the run that was started last."""
        with self._plainly():
            row = self._table.execute("SELECT value FROM facts WHERE name = 'run'").fetchone()
        return str(row[0]) if row else ""

    @run.setter
    def run(self, digest: str) -> None:
        if digest != self.run:
            with self.change():
                self._table.execute("INSERT OR REPLACE INTO facts VALUES ('run', ?)", (digest,))

    def write_entries(self) -> None:
        """Rewrite the list without obsolete entries."""
        if not self._changed and self._entries.is_file():
            return
        with atomic.replacing(self._entries) as file:
            last = b""
            while rows := list(self._select("WHERE path > ? ORDER BY path LIMIT 1000", last)):
                file.writelines(_line(kept) for kept in rows)
                last = os.fsencode(rows[-1].path)
        self._changed = False

    def _prepare(self) -> None:
        super()._prepare()
        if not self._columns("former"):  # created before this table existed
            with self.change():
                self._make_former()

    def _make_former(self) -> None:
        self._table.execute(f"CREATE TABLE former (path BLOB, {_FILE})")
        self._table.execute("CREATE INDEX former_by_path ON former (path)")

    def _make(self) -> None:
        super()._make()
        self._make_former()
        self._table.execute(f"CREATE TABLE files (path BLOB PRIMARY KEY, {_FILE})")
        self._table.execute("CREATE INDEX by_owner ON files (owner)")
        self._table.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT)")
        self._expect(read_entries(self._entries))

    def _expect(self, files: Iterable[Kept]) -> None:
        """Enter files that may not be in place yet; keep the entries of their predecessors."""
        former = "INSERT INTO former SELECT * FROM files WHERE path = ?"
        for kept in files:
            self._table.execute(former, (os.fsencode(kept.path),))
            self._enter([kept])

    def _leave_out(self, paths: Iterable[str]) -> None:
        for path in map(os.fsencode, paths):
            for table in ("files", "former"):
                self._table.execute(f"DELETE FROM {table} WHERE path = ?", (path,))

    def _enter(self, files: Iterable[Kept]) -> None:
        rows = (
            (
                os.fsencode(kept.path),
                os.fsencode(kept.owner),
                kept.size,
                kept.sha256,
                *kept.stamp[1:],
            )
            for kept in files
        )
        self._table.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def _select(self, where: str, *values: bytes, table: str = "files") -> Iterator[Kept]:
        query = f"SELECT path, owner, size, sha256, mtime, ctime, inode FROM {table}"
        with self._plainly():
            rows = self._table.execute(f"{query} {where}", values).fetchall()
        for path, owner, size, sha256, *stamp in rows:
            with suppress(TypeError, ValueError):
                mtime, ctime, inode = (int(number) for number in stamp)
                yield Kept(
                    os.fsdecode(path),
                    os.fsdecode(owner),
                    int(size),
                    str(sha256),
                    (int(size), mtime, ctime, inode),
                )

    def _append(self, entries: Iterable[Kept]) -> None:
        lines = b"".join(map(_line, entries))
        if not lines:
            return
        self._changed = True
        with atomic.writing_to(self._entries), self._entries.open("ab") as file:
            file.write(b"\n" + lines)  # ends a line that was cut off before


def _line(kept: Kept) -> bytes:
    return json.dumps([kept.owner, kept.path, kept.size, kept.sha256]).encode() + b"\n"


def read_entries(entries: Path, *, most: int = MOST) -> Iterator[Kept]:
    """Yield the entries of a list of files; of several for one path, the last is valid.

    Invalid entries are skipped; a list that is missing or no regular file is empty. An entry of
    only owner and path leaves the content unknown. most: bytes to read.
    """
    with suppress(OSError), regular.open_file(entries, links=False) as file:
        while file.tell() < most and (line := file.readline(_LONGEST)):
            with suppress(ValueError, TypeError, RecursionError, OverflowError):
                owner, path, size, digest = (*json.loads(line), -1, "")[:4]
                if isinstance(owner, str) and isinstance(path, str) and is_ours(path):
                    os.fsencode(owner + path)
                    yield Kept(path, owner, int(size), str(digest))
