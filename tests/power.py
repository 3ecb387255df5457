"""Simulated disk that loses power: synced data survives, the rest at random, by a seed.

A process's calls that sync or change names are intercepted in Python. After a cut, a file has the
bytes of its last sync, or none, or some; a folder has each of its names as of its last sync, or as
of now. The journal is as of its last commit: SQLite is trusted to sync those itself.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Any, TypeAlias

import pytest

from segclip.batch.journal import Journal

# "file" and its number and path, "link" and its target, "folder" and its path
Entry: TypeAlias = "tuple[str, Any]"
STATE = ".segclip"


class PowerCut(BaseException):
    """The power is cut; no ordinary handler catches it."""


class Disk:
    """Record disk changes below ``root``; at event ``cut``, build in ``after`` what survives."""

    def __init__(self, root: Path, after: Path, cut: int, seed: int) -> None:
        self.root, self.after, self.cut = root, after, cut
        self.events = 0
        self._building = False
        self._random = random.Random(seed)
        # probability that unsynced names survive
        self._luck = self._random.choice((0.0, 0.0, 0.5, 0.9))
        self._numbers: dict[int, int] = {}  # of files, by inode
        self._content: dict[int, bytes] = {}  # synced, by number
        # synced, by folder
        self._names: dict[str, dict[str, Entry]] = {
            str(root): {STATE: ("folder", str(root / STATE))}
        }
        self._journal: bytes | None = None
        self._lock = RLock()

    def attach(self, patch: pytest.MonkeyPatch) -> None:
        """Intercept this process's calls."""
        self._intercept(patch, os, "replace", before=lambda source, target, **_: self._gone(target))
        self._intercept(patch, os, "unlink", before=self._gone)
        self._intercept(patch, os, "fsync", after=self._synced)
        for name in ("mkdir", "symlink", "rmdir"):
            self._intercept(patch, os, name)
        self._intercept(patch, Journal, "store")
        change = Journal.change

        @contextmanager
        def changed(journal: Journal) -> Iterator[None]:
            self._event()
            with change(journal):
                yield
            with self._lock:
                self._journal = journal.path.read_bytes()
            self._event()

        patch.setattr(Journal, "change", changed)

    def end(self) -> None:
        """Cut the power after the last event, unless it was cut before."""
        if self.events < self.cut:
            self._build(self.root, self.after)

    def _intercept(
        self,
        patch: pytest.MonkeyPatch,
        place: Any,
        name: str,
        before: Callable[..., None] | None = None,
        after: Callable[..., None] | None = None,
    ) -> None:
        call = getattr(place, name)

        def intercepted(*arguments: Any, **named: Any) -> Any:
            self._event()
            with self._lock:
                if before:
                    before(*arguments, **named)
                answer = call(*arguments, **named)
                if after:
                    after(*arguments)
            return answer

        patch.setattr(place, name, intercepted)

    def _event(self) -> None:
        with self._lock:
            if self._building:
                return
            self.events += 1
            if self.events == self.cut:
                self._building = True
                self._build(self.root, self.after)
                self._building = False
            if self.cut and self.events >= self.cut:
                raise PowerCut

    def _gone(self, path: Any, dir_fd: int | None = None) -> None:
        """Forget the number of a removed file: its inode may be reused."""
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        with suppress(OSError):
            self._numbers.pop(os.lstat(path).st_ino, None)

    def _synced(self, descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if os.path.isdir(path):
            self._names[path] = self._listed(path)
        else:
            self._content[self._number(os.fstat(descriptor).st_ino)] = Path(path).read_bytes()

    def _number(self, inode: int) -> int:
        return self._numbers.setdefault(
            inode, len(self._numbers) + len(self._content) + self.events * 1000
        )

    def _listed(self, folder: str) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for entry in os.scandir(folder) if os.path.isdir(folder) else ():
            if entry.is_symlink():
                found[entry.name] = ("link", os.readlink(entry.path))
            elif entry.is_dir():
                found[entry.name] = ("folder", entry.path)
            else:
                found[entry.name] = ("file", (self._number(entry.stat().st_ino), entry.path))
        return found

    def _build(self, folder: Path, after: Path) -> None:
        after.mkdir()
        durable, now = self._names.get(str(folder), {}), self._listed(str(folder))
        for name in sorted({*durable, *now}):
            entry = (now if self._random.random() < self._luck else durable).get(name)
            if entry is None:
                continue
            kind, value = entry
            if kind == "link":
                (after / name).symlink_to(value)
            elif name == STATE and folder == self.root:
                self._build_state(after / name)
            elif kind == "folder":
                self._build(Path(value), after / name)
            else:
                (after / name).write_bytes(self._surviving(*value))

    def _surviving(self, number: int, path: str) -> bytes:
        if number in self._content:
            return self._content[number]
        try:
            there = Path(path).read_bytes() if stat.S_ISREG(os.lstat(path).st_mode) else b""
        except OSError:
            there = b""
        return self._random.choice((b"", there[: len(there) // 2], bytes(len(there))))

    def _build_state(self, after: Path) -> None:
        after.mkdir()
        if self._journal is not None:
            (after / "journal.sqlite").write_bytes(self._journal)
        entries = self.root / STATE / "files.jsonl"
        if entries.is_file():
            data = entries.read_bytes()
            (after / "files.jsonl").write_bytes(data[: self._random.randrange(len(data) + 1)])
        if self._random.random() < 0.5:  # leftover staged files
            (after / "parts-all" / "1" / "png").mkdir(parents=True)
            (after / "parts-all" / "1" / "png" / "a.png.mask.00.png").write_bytes(b"")
