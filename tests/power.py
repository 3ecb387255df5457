"""A disk that loses power: what it holds then is what was synced, and of the rest whatever the seed
says.

A process's calls that change names or sync are followed from Python. After a cut a file has the
bytes it had when it was last synced, or none, or some; a folder has each of its names as when the
folder was last synced, or as it is now. The journal is as after its last commit: SQLite syncs those
itself, and is trusted to.
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

Entry: TypeAlias = (
    "tuple[str, Any]"  # "file" and its number, "link" and its target, "folder" and its path
)
STATE = ".segclip"


class PowerCut(BaseException):
    """Raise where the power goes; no ordinary handler catches it."""


class Disk:
    """Follow what happens below ``root`` until the n-th event, and build then what is left of it in
    ``after``.
    """

    def __init__(self, root: Path, after: Path, cut: int, seed: int) -> None:
        self.root, self.after, self.cut = root, after, cut
        self.events = 0
        self._building = False
        self._random = random.Random(seed)
        self._luck = self._random.choice(
            (0.0, 0.0, 0.5, 0.9)
        )  # how likely what was not synced is there anyhow
        self._numbers: dict[int, int] = {}  # of files, by inode
        self._content: dict[int, bytes] = {}  # synced, by number
        self._names: dict[str, dict[str, Entry]] = {
            str(root): {STATE: ("folder", str(root / STATE))}
        }  # synced
        self._journal: bytes | None = None
        self._lock = RLock()

    def attach(self, patch: pytest.MonkeyPatch) -> None:
        """Follow this process's calls."""
        self._follow(patch, os, "replace", before=lambda source, target, **_: self._gone(target))
        self._follow(patch, os, "unlink", before=lambda path, **named: self._gone(path, **named))
        self._follow(patch, os, "fsync", after=self._synced)
        for name in ("mkdir", "symlink", "rmdir"):
            self._follow(patch, os, name)
        self._follow(patch, Journal, "_store")
        change = Journal._change

        @contextmanager
        def changed(journal: Journal) -> Iterator[None]:
            self._event()
            with change(journal):
                yield
            with self._lock:
                self._journal = journal._path.read_bytes()
            self._event()

        patch.setattr(Journal, "_change", changed)

    def end(self) -> None:
        """Cut the power after the last event, unless it went before."""
        if self.events < self.cut:
            self._build(self.root, self.after)

    def _follow(
        self,
        patch: pytest.MonkeyPatch,
        place: Any,
        name: str,
        before: Callable[..., None] | None = None,
        after: Callable[..., None] | None = None,
    ) -> None:
        call = getattr(place, name)

        def followed(*arguments: Any, **named: Any) -> Any:
            self._event()
            with self._lock:
                if before:
                    before(*arguments, **named)
                answer = call(*arguments, **named)
                if after:
                    after(*arguments)
            return answer

        patch.setattr(place, name, followed)

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
        """Forget the number of a file that is removed: its inode may be given to another."""
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
            kind, what = entry
            if kind == "link":
                (after / name).symlink_to(what)
            elif name == STATE and folder == self.root:
                self._build_state(after / name)
            elif kind == "folder":
                self._build(Path(what), after / name)
            else:
                (after / name).write_bytes(self._left_of(*what))

    def _left_of(self, number: int, path: str) -> bytes:
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
        if self._random.random() < 0.5:  # leftovers of what was written aside
            (after / "parts-all" / "1" / "png").mkdir(parents=True)
            (after / "parts-all" / "1" / "png" / "a.png.mask.00.png").write_bytes(b"")
