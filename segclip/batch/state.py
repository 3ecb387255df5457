"""State folder of an output: its locks and its journal."""

from __future__ import annotations

import logging
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import filelock

from ..errors import BadIndex, Busy, NotWritable
from ..files import atomic, regular
from .journal import BESIDE, Damaged
from .ledger import Ledger, read_entries

STATE = ".segclip"  # folder inside the output
WHOLE = "all"  # name of an undivided run; parts are named like "2-of-3"
_JOURNAL, _ENTRIES = "journal.sqlite", "files.jsonl"
_PATIENCE = 30.0  # s to wait while another part starts

log = logging.getLogger(__name__)


def prepare(out: Path) -> Path:
    """Create the state folder of an output and return it.

    Raises NotWritable, and BadIndex for one of a former version.
    """
    folder = out / STATE
    with atomic.writing_to(folder, "; choose another folder for the output"):
        regular.refuse_strange(folder)
        folder.mkdir(parents=True, exist_ok=True)
        entries = list(folder.iterdir())
        for path in entries:
            regular.refuse_strange(path)
    former = next(
        (path for path in entries if path.name == "all.sqlite" or path.match("*-of-*.sqlite")), None
    )
    if former and not (folder / _JOURNAL).exists():
        raise BadIndex(
            f"{out} was written by an older segclip, whose journal {former.name} is no longer "
            f"read; choose another folder, or delete {out} and run again"
        )
    return folder


@contextmanager
def opened(folder: Path, part: str, run: str, *, damaged: str = "") -> Iterator[Ledger]:
    """Open the journal of an output for a part of a run, locking out all but its other parts.

    run: digest of the settings that all parts share. damaged: why to set the existing journal
    aside. Raises Busy while another run, or the same part, is active, and as ``Journal`` does.
    """
    with ExitStack() as stack:
        # two parts that start at once must not both take the other for inactive
        with _lock(folder / "begin.lock", _PATIENCE):
            stack.enter_context(_lock(folder / f"{part}.lock"))
            free = not _others(folder, part)
            if damaged and free:
                _set_aside(folder, damaged)
            try:
                ledger = Ledger(folder / _JOURNAL, folder / _ENTRIES)
            except Damaged as error:
                if not free:
                    raise
                _set_aside(folder, str(error))
                ledger = Ledger(folder / _JOURNAL, folder / _ENTRIES)
            stack.enter_context(closing(ledger))
            if not free and ledger.run != run:
                raise Busy(_busy(folder))
            ledger.run = run
        yield ledger


def _others(folder: Path, part: str) -> bool:
    """Return whether other parts of the same run are active. Raises Busy for any other run."""
    found = False
    for other in sorted(folder.glob("*.lock")):
        if other.name in (f"{part}.lock", "begin.lock", "collect.lock") or not _is_held(other):
            continue
        if part == WHOLE or other.stem.partition("-of-")[2] != part.partition("-of-")[2]:
            raise Busy(_busy(folder))
        found = True
    return found


@contextmanager
def collecting(folder: Path) -> Iterator[None]:
    """Let one part at a time write the files of the whole run; the others wait."""
    with _lock(folder / "collect.lock", -1):
        yield


@contextmanager
def alone(folder: Path, part: str) -> Iterator[None]:
    """Lock a folder, created if needed, against a second run of the same name.

    Raises Busy and NotWritable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotWritable(f"{folder.parent} cannot be written to, {error.strerror}") from None
    with _lock(folder / f"{part}.lock"):
        yield


def _set_aside(folder: Path, reason: str) -> None:
    """Move a damaged journal aside; the next is rebuilt from the list of files.

    Raises NotWritable.
    """
    number = 1
    while (aside := folder / f"damaged-{number}.sqlite").exists():
        number += 1
    log.warning("%s; it is kept as %s, and every image is processed again", reason, aside)
    with atomic.writing_to(folder):
        for suffix in BESIDE:
            with suppress(FileNotFoundError):
                (folder / f"{_JOURNAL}{suffix}").replace(f"{aside}{suffix}")


def written(out: Path) -> frozenset[str]:
    """Return the files that runs wrote into a folder, relative to it, from its list of entries."""
    return frozenset(kept.path for kept in read_entries(out / STATE / _ENTRIES))


def clear_scratch(scratch: Path, *, whole: bool) -> None:
    """Remove staged files of a killed run of this part; with ``whole``, of all parts."""
    for path in scratch.parent.iterdir() if whole else [scratch]:
        if path.name.startswith("parts-"):
            clear(path)
        elif atomic.is_leftover(path):
            path.unlink(missing_ok=True)


def clear(path: Path) -> None:
    """Remove staged files; never through a link."""
    if not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _lock(path: Path, timeout: float = 0) -> Iterator[None]:
    with suppress(OSError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise NotWritable(f"{path} is no file; delete it, and run again")
    lock = filelock.FileLock(path)
    with atomic.writing_to(path):
        try:
            lock.acquire(timeout=timeout)
        except filelock.Timeout:
            raise Busy(_busy(path.parent)) from None
    try:
        yield
    finally:
        lock.release()


def _is_held(path: Path) -> bool:
    try:
        with _lock(path):
            return False
    except Busy:
        return True


def _busy(folder: Path) -> str:
    return f"another run is writing to {folder.parent}; wait for it, or choose another folder"
