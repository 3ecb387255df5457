"""Remember every file of an output: nothing else is overwritten, and nothing is left behind.

A file is entered before it takes its place. The entries are appended to a plain list too, of which
the journal is made again where it was damaged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import NotWritable
from ..files import atomic, regular
from ..files.formats import PER_IMAGE
from .journal import Journal, Outcome, Stamp

RUN = ""  # who the files of a run as a whole belong to; the others belong to an image, by its name
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
_MOST, _LONGEST = 1 << 28, 1 << 16  # bytes of a list that are read, and of one of its lines


@dataclass(frozen=True)
class Kept:
    """Hold what is known of a file of the output, ``stamp`` once it took its place.

    path, size, sha256: as ``Staged`` holds them. owner: an image's name, or RUN.
    """

    path: str
    owner: str
    size: int
    sha256: str
    stamp: Stamp = _NEVER


def is_ours(path: str) -> bool:
    """Decide whether a path relative to an output is one that segclip writes to.

    What journals say is not trusted.
    """
    parts = PurePosixPath(path).parts
    plain = path == "/".join(parts) and "\0" not in path and not {"..", "."} & set(parts)
    return plain and (
        path in RUN_FILES or (len(parts) > 1 and (parts[0] in PER_IMAGE or parts[0] == YOLO))
    )


class Ledger(Journal):
    """Keep the outcomes of an output and its files. ``Journal`` says what is raised."""

    _mode = "TRUNCATE"  # unlike WAL it holds where machines share a file system
    _tables = ("outcomes", "files", "former", "facts")

    def __init__(self, path: Path, entries: Path) -> None:
        """Open a journal, or make it, of the list of entries if there is one."""
        self._entries = entries
        self._changed = False
        super().__init__(path)

    def intend(self, files: Sequence[Kept], names: Iterable[str]) -> None:
        """Enter files that will take their places; drop outcomes that will no longer hold."""
        self._append(files)
        with self._change():
            self._expect(files)
            self._table.executemany(
                "DELETE FROM outcomes WHERE name = ?", [(os.fsencode(name),) for name in names]
            )

    def confirm(
        self, files: Iterable[Kept], outcomes: Iterable[Outcome], gone: Iterable[str]
    ) -> None:
        """Enter files that took their places, and their outcomes; drop files that are gone."""
        placed = list(files)
        with self._change():
            self._enter(placed)
            paths = [(os.fsencode(kept.path),) for kept in placed]
            self._table.executemany("DELETE FROM former WHERE path = ?", paths)
            self._leave_out(gone)
            for outcome in outcomes:
                self._store(outcome)

    def drop(self, names: Sequence[str], gone: Iterable[str]) -> None:
        """Drop images that are none of the run's any more, and their files."""
        with self._change():
            self._leave_out(gone)
            self._table.executemany(
                "DELETE FROM outcomes WHERE name = ?", [(os.fsencode(name),) for name in names]
            )

    def restamp(
        self, names: Sequence[tuple[str, Stamp]], files: Sequence[tuple[str, Stamp]]
    ) -> None:
        """Note that images and files were touched, but are the same: they stay known."""
        update = "UPDATE {} SET size = ?, mtime = ?, ctime = ?, inode = ? WHERE {} = ?"
        with self._change():
            for table, key, rows in (("outcomes", "name", names), ("files", "path", files)):
                self._table.executemany(
                    update.format(table, key), [(*stamp, os.fsencode(name)) for name, stamp in rows]
                )

    def find(self, path: str) -> Kept | None:
        """Return what is known of a file."""
        return next(self._select("WHERE path = ?", os.fsencode(path)), None)

    def possible(self, path: str) -> list[Kept]:
        """Return all that a run may have left at a path.

        Besides what is known of the file this is what was there before, until the new one is
        confirmed: a run that was killed in between left either.
        """
        where, name = "WHERE path = ?", os.fsencode(path)
        return [*self._select(where, name), *self._select(where, name, table="former")]

    def files(self, owner: str) -> list[Kept]:
        """Return the files of an image, or of RUN."""
        return list(self._select("WHERE owner = ? ORDER BY path", os.fsencode(owner)))

    def owners(self) -> list[str]:
        """Name whatever has files."""
        with self._plainly():
            rows = self._table.execute("SELECT DISTINCT owner FROM files").fetchall()
        return [os.fsdecode(owner) for (owner,) in rows if isinstance(owner, (bytes, str))]

    @property
    def run(self) -> str:
        """Return the digest of the run that was last begun."""
        with self._plainly():
            row = self._table.execute("SELECT value FROM facts WHERE name = 'run'").fetchone()
        return str(row[0]) if row else ""

    @run.setter
    def run(self, digest: str) -> None:
        if digest != self.run:
            with self._change():
                self._table.execute("INSERT OR REPLACE INTO facts VALUES ('run', ?)", (digest,))

    def write_entries(self) -> None:
        """Write the list anew, without what has come and gone."""
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
        if not self._columns("former"):  # made before there was this table
            with self._change():
                self._make_former()

    def _make_former(self) -> None:
        self._table.execute(
            "CREATE TABLE former (path BLOB, owner BLOB, size INTEGER, sha256 TEXT, mtime INTEGER, "
            "ctime INTEGER, "
            "inode INTEGER)"
        )
        self._table.execute("CREATE INDEX former_by_path ON former (path)")

    def _make(self) -> None:
        super()._make()
        self._make_former()
        self._table.execute(
            "CREATE TABLE files (path BLOB PRIMARY KEY, owner BLOB, size INTEGER, sha256 TEXT, "
            "mtime INTEGER, "
            "ctime INTEGER, inode INTEGER)"
        )
        self._table.execute("CREATE INDEX by_owner ON files (owner)")
        self._table.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT)")
        self._expect(read_entries(self._entries))

    def _expect(self, files: Iterable[Kept]) -> None:
        """Enter files that may not have taken their places: what was there before may still be."""
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
        try:
            with self._entries.open(
                "ab"
            ) as file:  # what was cut off here before is a line of its own
                file.write(b"\n" + lines)
        except OSError as error:
            raise NotWritable(
                f"{self._entries}: cannot be written, {error.strerror or error}"
            ) from error


def _line(kept: Kept) -> bytes:
    return json.dumps([kept.owner, kept.path, kept.size, kept.sha256]).encode() + b"\n"


def read_entries(entries: Path) -> Iterator[Kept]:
    """Read a list of files, the later entry of a path the one that holds.

    What makes no sense is passed over, and a missing list is empty; so is one that is no regular
    file. An entry of owner and path alone says nothing of the content.
    """
    with suppress(OSError), regular.open_file(entries, links=False) as file:
        while file.tell() < _MOST and (line := file.readline(_LONGEST)):
            with suppress(ValueError, TypeError, RecursionError, OverflowError):
                owner, path, size, digest = (*json.loads(line), -1, "")[:4]
                if isinstance(owner, str) and isinstance(path, str) and is_ours(path):
                    os.fsencode(owner + path)
                    yield Kept(path, owner, int(size), str(digest))
