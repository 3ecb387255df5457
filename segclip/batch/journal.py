"""Journal of outcomes: one row per image in SQLite, safe against kills and power cuts."""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import BadIndex, Busy, NotWritable
from ..files import regular

STATES = ("matched", "empty", "failed")
VERSION = 2  # of the tables; 1 identified a file by its size and modification time alone
BESIDE = ("", "-journal", "-wal", "-shm")  # suffixes of a journal's files: its own, and SQLite's
PATIENCE = 10.0  # s to wait for another process's lock

Stamp: TypeAlias = tuple[int, int, int, int]  # size, modification and change time in ns, inode

# SQLite's error codes
_NONE = (1, 26)  # no such table or column, not a database
_BUSY = (5, 6)  # busy, locked
_FULL = (3, 8, 10, 13, 14, 23)  # no permission, read-only, I/O, full ...
_MOST = 2**28  # bytes of one row's record
_FARTHEST = 20_000  # successive unreadable row numbers to try
# ends a rollback file that names a super-journal, which SQLite then deletes
_SUPER = bytes.fromhex("d9d505f920a163d7")
_COLUMNS = ("name", "content", "size", "mtime", "ctime", "inode", "asked", "state", "rest")


class Damaged(BadIndex):
    """The journal is damaged or not a journal: its content is lost, and it may be set aside."""


@dataclass(frozen=True)
class Staged:
    """A file staged at ``at`` for ``path``, which is relative to the output, with "/".

    size, sha256: of its content; for a link, of its target's path.
    """

    path: str
    at: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Outcome:
    """The outcome of one image.

    name: of the item. content: SHA-256 of its bytes, "" if unreadable. stamp: from
    ``files.stamp_of``. asked: digest of everything else that changes the result. state: one of
    STATES. files: staged files, not stored in the journal. record: from exporters.to_record,
    without its image. reason, trace: why it failed. passing: it failed for lack of memory or the
    like, and is retried automatically. unfit: its prompts were invalid, and earlier outputs stay.
    halts: nothing can be written any more.
    """

    name: str
    content: str
    stamp: Stamp
    asked: str
    state: str
    files: tuple[Staged, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    trace: str = ""
    passing: bool = False
    unfit: bool = False
    halts: bool = False

    def why(self, path: Path) -> str:
        """Return the reason, with the image's current path in place of its name."""
        reason = self.reason.removeprefix(f"{self.name}: ")
        return self.reason if reason == self.reason else f"{path}: {reason}"


class Journal:
    """Outcomes by image name. Names are stored as bytes: a file name need not be text.

    All methods raise Busy if another process locks the file too long, NotWritable if it cannot be
    written, and Damaged if it is not a journal. An invalid row counts as missing.
    """

    _mode = "WAL"  # one process writes while others read
    _tables: tuple[str, ...] = ("outcomes",)

    def __init__(self, path: Path, *, fixed: bool = False) -> None:
        """Open or create the file. fixed: open it read-only, as on a read-only disk."""
        self.path = path
        with self._plainly():
            _check_kinds(path)
            if fixed:
                self._table = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            _check_rollback(path)  # first: SQLite acts on it as soon as it opens the journal
            self._table = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        with ExitStack() as stack, self._plainly():
            stack.callback(self._table.close)
            self._table.execute("PRAGMA trusted_schema=OFF")  # an output may be a stranger's
            self._table.execute(f"PRAGMA journal_mode={self._mode}")
            self._table.execute(f"PRAGMA synchronous={'NORMAL' if self._mode == 'WAL' else 'FULL'}")
            self._prepare()
            stack.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._table.close()

    def put(self, outcome: Outcome) -> None:
        """Store an outcome, replacing the image's former one; it is durable once this returns."""
        with self.change():
            self.store(outcome)

    def get(self, name: str) -> Outcome | None:
        """Return an image's outcome."""
        found = self._find(", ".join(_COLUMNS), name)
        return _outcome(found) if found else None

    def mark(self, name: str) -> tuple[Any, ...] | None:
        """Return what identifies an image's outcome: content, size, modification time, question."""
        return self._find("content, size, mtime, asked", name)

    def stored(self, size: int) -> list[str]:
        """Return the names of images of this many bytes, to find the former name of a moved one."""
        query = "SELECT name FROM outcomes WHERE size = ? AND state <> 'failed'"
        return self._names(query, size)

    def forget(self, name: str) -> None:
        """Drop an image's outcome."""
        with self.change():
            self._delete([name])

    def names(self) -> list[str]:
        """Return all names."""
        return self._names("SELECT name FROM outcomes")

    def state(self, name: str) -> tuple[str, str] | None:
        """Return an image's state and the digest of its question, without unpacking its record."""
        row = self._find("state, asked", name)
        return (row[0], row[1]) if row else None

    def _find(self, columns: str, name: str) -> tuple[Any, ...] | None:
        query = f"SELECT {columns} FROM outcomes WHERE name = ?"
        with self._plainly():
            found: tuple[Any, ...] | None = self._table.execute(
                query, (os.fsencode(name),)
            ).fetchone()
        return found

    def _names(self, query: str, *values: object) -> list[str]:
        """Return the names that a query selects, without those that a damaged file turned odd."""
        with self._plainly():
            rows = self._table.execute(query, values).fetchall()
        return [os.fsdecode(name) for (name,) in rows if isinstance(name, (bytes, str))]

    def _delete(self, names: Iterable[str]) -> None:
        self._table.executemany(
            "DELETE FROM outcomes WHERE name = ?", [(os.fsencode(name),) for name in names]
        )

    def store(self, outcome: Outcome) -> None:
        """Store an outcome as part of a ``change``."""
        rest = {name: getattr(outcome, name) for name in ("record", "reason", "trace", "passing")}
        packed = zlib.compress(json.dumps(rest).encode(), 1)
        row = (
            os.fsencode(outcome.name),
            outcome.content,
            *outcome.stamp,
            outcome.asked,
            outcome.state,
            packed,
        )
        self._table.execute(
            "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row
        )

    def _prepare(self) -> None:
        """Create the tables, or upgrade those of the former version; raise for any others."""
        (version,) = self._table.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise BadIndex(
                f"{self.path} was written by a newer segclip; update segclip, or choose another "
                "folder"
            )
        # reject triggers and views
        names = "SELECT iif(type IN ('table', 'index'), tbl_name, name) FROM sqlite_master"
        named = {name for (name,) in self._table.execute(names)}
        if unknown := named - {*self._tables, "sqlite_sequence"}:
            raise Damaged(f"{self.path} is no journal of segclip's, it holds {min(unknown)!r}")
        if version < VERSION:
            with self.change():
                if self._columns("outcomes") == (*_COLUMNS[:4], *_COLUMNS[6:]):
                    self._upgrade()
                self._make()
                self._table.execute(f"PRAGMA user_version = {VERSION}")
        if self._columns("outcomes") != _COLUMNS:
            raise Damaged(f"{self.path} is no journal of segclip's, its columns differ")

    def _make(self) -> None:
        self._table.execute(
            "CREATE TABLE IF NOT EXISTS outcomes (name BLOB PRIMARY KEY, content TEXT, size "
            "INTEGER, mtime INTEGER, "
            "ctime INTEGER, inode INTEGER, asked TEXT, state TEXT, rest BLOB)"
        )

    def _upgrade(self) -> None:
        self._table.execute("ALTER TABLE outcomes RENAME TO former")
        self._make()
        self._table.execute(
            "INSERT INTO outcomes SELECT name, content, size, mtime, 0, 0, asked, state, rest FROM "
            "former"
        )
        self._table.execute("DROP TABLE former")

    def _columns(self, table: str) -> tuple[str, ...]:
        return tuple(row[1] for row in self._table.execute(f"PRAGMA table_info({table})"))

    @contextmanager
    def change(self) -> Iterator[None]:
        """Run a transaction; every write to the file is part of one."""
        with self._plainly():
            self._table.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._table.execute("COMMIT")
            finally:
                if self._table.in_transaction:  # a full disk rolls back by itself
                    with suppress(sqlite3.Error):
                        self._table.execute("ROLLBACK")

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Translate SQLite's errors to segclip's, with a one-line remedy."""
        try:
            yield
        except sqlite3.ProgrammingError:  # a bug
            raise
        except (sqlite3.Error, UnicodeError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _BUSY:
                raise Busy(
                    f"{self.path}: another process holds it; wait until it ends, and run again"
                ) from error
            if code in _FULL:
                raise NotWritable(
                    f"{self.path}: cannot be written, {error}; make room or allow it, and run again"
                ) from error
            raise Damaged(f"{self.path} is damaged, {error}") from error
        except OSError as error:
            raise NotWritable(
                f"{self.path}: cannot be written, {error.strerror or error}"
            ) from error


def _check_kinds(path: Path) -> None:
    """Raise NotWritable for links, pipes and the like, which SQLite would follow or block on."""
    for place in (Path(f"{path}{suffix}") for suffix in BESIDE):
        if (found := regular.what_is(place)) not in ("", "a file"):
            raise NotWritable(
                f"{place} is {found}, in the place of a file of segclip's; delete it, and run again"
            )


def _check_rollback(path: Path) -> None:
    """Raise Damaged for a rollback file that would make SQLite delete another file."""
    with (
        suppress(FileNotFoundError),
        regular.open_file(Path(f"{path}-journal"), links=False) as file,
    ):
        file.seek(-min(len(_SUPER), os.fstat(file.fileno()).st_size), os.SEEK_END)
        if file.read() == _SUPER:
            raise Damaged(f"{path}-journal is none of segclip's")


def _outcome(row: tuple[Any, ...]) -> Outcome | None:
    """Decode a row; None if it is invalid."""
    name, content, *stamp, asked, state, packed = row
    with suppress(zlib.error, ValueError, TypeError, LookupError, RecursionError, MemoryError):
        rest = json.loads(zlib.decompressobj().decompress(packed, _MOST))
        record, reason, trace = rest["record"], rest["reason"], rest["trace"]
        sound = (
            all(isinstance(number, int) for number in stamp)
            and state in STATES
            and isinstance(record, dict)
        )
        if sound and all(isinstance(text, str) for text in (content, asked, reason, trace)):
            size, mtime, ctime, inode = stamp
            return Outcome(
                os.fsdecode(name),
                content,
                (size, mtime, ctime, inode),
                asked,
                state,
                record=record,
                reason=reason,
                trace=trace,
                passing=bool(rest.get("passing")),
            )
    return None


def salvage(path: Path) -> Iterator[Outcome]:
    """Yield the readable rows of a damaged journal, also those after a lost page."""
    query = (
        f"SELECT rowid, {', '.join(_COLUMNS)} FROM outcomes WHERE rowid > ? ORDER BY rowid LIMIT 1"
    )
    row, misses = 0, 0
    with closing(sqlite3.connect(path)) as table:
        with suppress(sqlite3.Error):
            table.execute("PRAGMA trusted_schema=OFF")
            table.execute("PRAGMA writable_schema=ON")  # else SQLite rejects a truncated file
        while misses < _FARTHEST:
            try:
                found = table.execute(query, (row,)).fetchone()
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) in _NONE:
                    return
                row, misses = row + 1, misses + 1
                continue
            if found is None:
                return
            # a damaged page may return any row, again and again
            if not (type(found[0]) is int and found[0] > row):
                row, misses = row + 1, misses + 1
                continue
            row, misses = found[0], 0
            if outcome := _outcome(found[1:]):
                yield outcome
