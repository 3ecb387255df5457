"""Temporary files of batches, deleted with the server, and in memory where the system can.

Each server has its own locked folder. The folder of a killed server has a free lock, and is deleted
when the next server starts.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

import segclip

_MEMORY = Path("/dev/shm")  # Linux keeps it in memory
_PREFIX = "segclip-app-"
_LOCK = "lock"
_NEW = 60.0  # s: a starting server may not have locked its folder yet


def place(chosen: str = "") -> Path:
    """Return the parent of the servers' folders: the chosen one, one in memory, or the system's."""
    if chosen:
        return Path(chosen)
    in_memory = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)
    return _MEMORY if in_memory else Path(tempfile.gettempdir())


def _age(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except OSError:
        return 0.0


class Scratch:
    """This server's folder, created on first use."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self._own: Path | None = None
        self._lock: FileLock | None = None

    def folder(self) -> Path:
        """Create an empty private folder. Raises NotWritable."""
        try:
            if self._own is None:
                self._begin()
            return Path(tempfile.mkdtemp(dir=self._own))
        except OSError as error:
            reason = error.strerror or error
            raise segclip.NotWritable(
                f"{self.parent}: cannot create a folder there, {reason}"
            ) from None

    def sweep(self) -> None:
        """Remove the folders of servers that no longer run."""
        for folder in self.parent.glob(f"{_PREFIX}*"):
            if folder == self._own or _age(folder) < _NEW:
                continue
            with suppress(OSError, Timeout), FileLock(folder / _LOCK, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove this server's folder with its contents."""
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()
        self._own = self._lock = None

    def _begin(self) -> None:
        own = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self.parent))
        self._lock = FileLock(own / _LOCK)
        self._lock.acquire()
        self._own = own
