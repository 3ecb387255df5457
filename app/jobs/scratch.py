"""Keep the files of batches where nothing of them outlives the server: in memory, where the system
can.

Each server has a folder of its own, which it locks. What a server that was killed left behind is
known by its lock being free, and goes when the next one starts.
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
_NEW = 60.0  # s: a server that begins just now may not have locked its folder yet


def place(chosen: str = "") -> Path:
    """Return the folder that servers' folders are made in: the chosen one, else one in memory, else
    the system's.
    """
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
    """Hold this server's folder, made when first used."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self._own: Path | None = None
        self._lock: FileLock | None = None

    def folder(self) -> Path:
        """Make an empty folder that nobody else may read. Raises NotWritable."""
        try:
            if self._own is None:
                self._begin()
            return Path(tempfile.mkdtemp(dir=self._own))
        except OSError as error:
            reason = error.strerror or error
            raise segclip.NotWritable(
                f"{self.parent}: no folder can be made there, {reason}"
            ) from None

    def sweep(self) -> None:
        """Remove what servers that are no more left behind."""
        for folder in self.parent.glob(f"{_PREFIX}*"):
            if folder == self._own or _age(folder) < _NEW:
                continue
            with suppress(OSError, Timeout), FileLock(folder / _LOCK, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove this server's folder with all that is in it."""
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
