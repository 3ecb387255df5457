"""Remember what is done: one row an image in SQLite, which survives being killed, and a power cut,
at any moment.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import BadIndex, Busy, NotWritable
from ..files import regular

STATES = ("matched", "empty", "failed")
VERSION = 2  # of the tables; 1 knew a file by its size and modification time alone
BESIDE = (
    "",
    "-journal",
    "-wal",
    "-shm",
)  # what the names of a journal's files end in: its own, and what SQLite adds
PATIENCE = 10.0  # s that another process may hold the file

Stamp: TypeAlias = tuple[int, int, int, int]  # size, modification and change time in ns, inode

_NONE = (1, 26)  # SQLite's codes: no such table or column, no database at all
_BUSY, _FULL = (
    (5, 6),
    (3, 8, 10, 13, 14, 23),
)  # SQLite's codes: busy, locked; no permission, read-only, I/O, full ...
_MOST = 2**28  # bytes of one row's record
_FARTHEST = 20_000  # row numbers that are tried where rows cannot be read
_SUPER = bytes.fromhex(
    "d9d505f920a163d7"
)  # ends a rollback file that names a further file, which SQLite then deletes
_COLUMNS = ("name", "content", "size", "mtime", "ctime", "inode", "asked", "state", "rest")


class Damaged(BadIndex):
    """Raise for a journal that is none, or no longer: what it held is lost, and it may be set
    aside.
    """


@dataclass(frozen=True)
class Staged:
    """Hold a file that was written aside for ``path``, relative to the output with "/", and lies at
    ``at``.

    size, sha256: of its content; of a link, of the place it leads to.
    """

    path: str
    at: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Outcome:
    """Hold what became of one image.

    name: of the item. content: SHA-256 of its bytes, "" where it cannot be read. stamp: what the
    system says of the file, as ``work.stamp_of`` returns it. asked: the digest of all else that
    changes the answer. state: one of STATES. files: what was written aside, which no journal keeps.
    record: exporters.to_record's, without its image. reason, trace: why it failed. passing: it
    failed for want of memory or the like, and is tried again without being asked. unfit: it failed
    for what it was asked, and what was made of it before stays. halts: nothing can be written any
    more.
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
        """Return the reason, with an image's present path in the place of its name."""
        what = self.reason.removeprefix(f"{self.name}: ")
        return self.reason if what == self.reason else f"{path}: {what}"


class Journal:
    """Keep outcomes by name. Names are bytes: a file's name need not be text.

    Everything raises Busy while another process holds the file too long, NotWritable where nothing
    can be written, and Damaged where the file is no journal. A row that makes no sense counts as
    none.
    """

    _mode = "WAL"  # one process writes while others read
    _tables: tuple[str, ...] = ("outcomes",)

    def __init__(self, path: Path, *, fixed: bool = False) -> None:
        """Open a file, or make it. fixed: only read, where nothing can be written, such as on a
        disc.
        """
        self._path = path
        with self._plainly():
            _check_kinds(path)
            if fixed:
                self._table = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            _check_rollback(path)
            self._table = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        with ExitStack() as stack, self._plainly():
            stack.callback(self._table.close)
            self._table.execute(
                "PRAGMA trusted_schema=OFF"
            )  # an output may have been received from elsewhere
            self._table.execute(f"PRAGMA journal_mode={self._mode}")
            self._table.execute(f"PRAGMA synchronous={'NORMAL' if self._mode == 'WAL' else 'FULL'}")
            self._prepare()
            stack.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._table.close()

    def put(self, outcome: Outcome) -> None:
        """Store an outcome in the place of the image's former one; it is safe once this returns."""
        with self._change():
            self._store(outcome)

    def get(self, name: str) -> Outcome | None:
        """Return an image's outcome."""
        with self._plainly():
            query = f"SELECT {', '.join(_COLUMNS)} FROM outcomes WHERE name = ?"
            found = self._table.execute(query, (os.fsencode(name),)).fetchone()
        return _outcome(found) if found else None

    def mark(self, name: str) -> tuple[Any, ...] | None:
        """Return what tells an image's outcome from another: its content, stamp and question."""
        query = "SELECT content, size, mtime, asked FROM outcomes WHERE name = ?"
        with self._plainly():
            found = self._table.execute(query, (os.fsencode(name),)).fetchone()
        return tuple(found) if found else None

    def stored(self, size: int) -> list[str]:
        """Name the images of this many bytes: among them is the former name of one that was
        moved.
        """
        with self._plainly():
            rows = self._table.execute(
                "SELECT name FROM outcomes WHERE size = ? AND state <> 'failed'", (size,)
            )
            return [
                os.fsdecode(name) for (name,) in rows.fetchall() if isinstance(name, (bytes, str))
            ]

    def forget(self, name: str) -> None:
        """Drop an image's outcome."""
        with self._change():
            self._table.execute("DELETE FROM outcomes WHERE name = ?", (os.fsencode(name),))

    def names(self) -> Iterator[str]:
        """Return all names."""
        with self._plainly():
            rows = self._table.execute("SELECT name FROM outcomes").fetchall()
        return (os.fsdecode(name) for (name,) in rows if isinstance(name, (bytes, str)))

    def state(self, name: str) -> tuple[str, str] | None:
        """Return an image's state and the digest it was asked with, without unpacking its
        record.
        """
        with self._plainly():
            query = "SELECT state, asked FROM outcomes WHERE name = ?"
            row = self._table.execute(query, (os.fsencode(name),)).fetchone()
        return (row[0], row[1]) if row else None

    def _store(self, outcome: Outcome) -> None:
        rest = {
            "record": outcome.record,
            "reason": outcome.reason,
            "trace": outcome.trace,
            "passing": outcome.passing,
        }
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
        """Make the tables, or bring those of the former version up to date; refuse others."""
        (version,) = self._table.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise BadIndex(
                f"{self._path} was written by a newer segclip; update segclip, or choose another "
                "folder"
            )
        # no trigger, no view
        names = "SELECT iif(type IN ('table', 'index'), tbl_name, name) FROM sqlite_master"
        named = {name for (name,) in self._table.execute(names)}
        if strange := named - {*self._tables, "sqlite_sequence"}:
            raise Damaged(f"{self._path} is no journal of segclip's, it holds {min(strange)!r}")
        if version < VERSION:
            with self._change():
                if self._columns("outcomes") == (*_COLUMNS[:4], *_COLUMNS[6:]):
                    self._upgrade()
                self._make()
                self._table.execute(f"PRAGMA user_version = {VERSION}")
        if self._columns("outcomes") != _COLUMNS:
            raise Damaged(f"{self._path} is no journal of segclip's, its columns are others")

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
    def _change(self) -> Iterator[None]:
        """Do several things or none."""
        with self._plainly():
            self._table.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._table.execute("COMMIT")
            finally:
                if (
                    self._table.in_transaction
                ):  # it failed, and not for a full disk, which rolls back by itself
                    with suppress(sqlite3.Error):
                        self._table.execute("ROLLBACK")

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Raise SQLite's errors as ours, in one line that says what to do."""
        try:
            yield
        except sqlite3.ProgrammingError:  # ours
            raise
        except (sqlite3.Error, UnicodeError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _BUSY:
                raise Busy(
                    f"{self._path}: another process holds it; wait until it ends, and run again"
                ) from error
            if code in _FULL:
                raise NotWritable(
                    f"{self._path}: cannot be written, {error}; make room or allow it, and run "
                    "again"
                ) from error
            raise Damaged(f"{self._path} is damaged, {error}") from error
        except OSError as error:
            raise NotWritable(
                f"{self._path}: cannot be written, {error.strerror or error}"
            ) from error


def _check_kinds(path: Path) -> None:
    """Refuse links, pipes and the like, which SQLite would follow or wait for. Raises
    NotWritable.
    """
    for place in (Path(f"{path}{suffix}") for suffix in BESIDE):
        if (found := regular.what_is(place)) not in ("", "a file"):
            raise NotWritable(
                f"{place} is {found}, in the place of a file of segclip's; delete it, and run again"
            )


def _check_rollback(path: Path) -> None:
    """Refuse a rollback file that would make SQLite delete another file. Raises Damaged."""
    with (
        suppress(FileNotFoundError),
        regular.open_file(Path(f"{path}-journal"), links=False) as file,
    ):
        file.seek(-min(len(_SUPER), os.fstat(file.fileno()).st_size), os.SEEK_END)
        if file.read() == _SUPER:
            raise Damaged(f"{path}-journal is none of segclip's")


def _outcome(row: tuple[Any, ...]) -> Outcome | None:
    """Read a row; None where it makes no sense."""
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
            known = {
                "record": record,
                "reason": reason,
                "trace": trace,
                "passing": bool(rest.get("passing")),
            }
            return Outcome(
                os.fsdecode(name), content, (size, mtime, ctime, inode), asked, state, **known
            )
    return None


def salvage(path: Path) -> Iterator[Outcome]:
    """Read whatever rows a damaged journal still holds: where a page is lost, those behind it are
    not.
    """
    query = (
        f"SELECT rowid, {', '.join(_COLUMNS)} FROM outcomes WHERE rowid > ? ORDER BY rowid LIMIT 1"
    )
    row, misses = 0, 0
    with closing(sqlite3.connect(path)) as table:
        with suppress(sqlite3.Error):
            table.execute("PRAGMA trusted_schema=OFF")
            table.execute(
                "PRAGMA writable_schema=ON"
            )  # a file that was cut off is read as far as it goes
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
            if not (
                type(found[0]) is int and found[0] > row
            ):  # a damaged page answers with any row, again and again
                row, misses = row + 1, misses + 1
                continue
            row, misses = found[0], 0
            if outcome := _outcome(found[1:]):
                yield outcome
