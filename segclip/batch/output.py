"""Write to an output folder, and nowhere else; all files of a batch are moved or removed here.

Files are staged and synced first. Then, for several images at a time, to amortise disk syncs: the
journal enters what will be written, the files are moved into place, their folders are synced, and
the journal enters the outcomes. Whatever happens in between, the next run knows which files belong
to a run.

A file belongs to a run as long as it is unchanged. Anything else in its place, such as a label
corrected by hand, belongs to the user; only the remains of a file after a power cut or disk error
are replaced.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from time import monotonic
from typing import IO

from ..errors import NotWritable
from ..files import atomic
from .files import LINK, describe, is_same, is_torn, stamp_of_link, stamp_of_placed, sync_staged
from .journal import Outcome, Staged, Stamp
from .ledger import RUN, Kept, Ledger, is_ours

log = logging.getLogger(__name__)

TOGETHER = 64  # outcomes, or files of the run, per flush
_PAUSE = 1.0  # s between flushes, at least
_SHARE = 20.0  # pause relative to the last flush: syncing costs a twentieth of the time


class Output:
    """Writer of one output folder.

    Raises NotWritable for what would affect any other file, and as ``Journal`` does.
    """

    def __init__(self, out: Path, scratch: Path, ledger: Ledger, inputs: frozenset[str]) -> None:
        """Open an output folder. scratch: a staging folder inside it. inputs: real paths."""
        self.root = Path(os.path.realpath(out))
        self.ledger = ledger
        self._scratch = scratch
        self.inputs = inputs
        self.verify = False  # read the run's files even if untouched
        self._outcomes: list[Outcome] = []
        self._files: list[Staged] = []  # of the run
        self._run: set[str] = set()  # paths of the run's current files
        self._touched: tuple[list[tuple[str, Stamp]], list[tuple[str, Stamp]]] = ([], [])
        self._last, self._took = monotonic(), 0.0

    def keep(self, outcome: Outcome) -> None:
        """Accept an image's outcome; its files are moved into place soon, or by ``flush``."""
        if outcome.halts:
            raise NotWritable(
                f"{outcome.reason}; what is done is kept, and the same command goes on from here"
            )
        self._outcomes.append(outcome)
        waited = monotonic() - self._last
        if len(self._outcomes) >= TOGETHER or waited >= max(_PAUSE, _SHARE * self._took):
            self.flush()

    def flush(self) -> None:
        """Move everything accepted so far into place."""
        start = monotonic()
        outcomes, self._outcomes = self._outcomes, []
        files, self._files = self._files, []
        self._place(outcomes, files)
        names, paths = self._touched
        if names or paths:
            self._touched = ([], [])
            self.ledger.restamp(names, paths)
        self._last = monotonic()
        self._took = self._last - start

    def touched(self, name: str, stamp: Stamp) -> None:
        """Record the new stamp of an image that was touched, but is unchanged."""
        self._touched[0].append((name, stamp))

    def is_sound(self, name: str, *, verify: bool = False) -> bool:
        """Return whether an image's files are unchanged. verify: read them even if untouched."""
        return all(self._is_intact(kept, verify) for kept in self.ledger.files(name))

    def owns(self, path: Path) -> bool:
        """Return whether a run wrote the file at a path."""
        inside = _real(path)
        if not inside.startswith(f"{self.root}{os.sep}"):
            return False
        return self.ledger.find(Path(inside).relative_to(self.root).as_posix()) is not None

    @contextmanager
    def writing(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file of the run; ``flush`` moves it into place if it changed."""
        aside = self._scratch / "run" / path
        with atomic.replacing(aside, sync=False) as file:
            yield file
        self._add(describe(aside, path))

    def link(self, path: str, target: Path) -> None:
        """Write a link of the run."""
        aside = self._scratch / "run" / path
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            aside.unlink(missing_ok=True)
            aside.symlink_to(target)
        except OSError as error:
            raise NotWritable(
                f"{self.root / path}: no link can be made, {error.strerror or error}"
            ) from error
        self._add(describe(aside, path))

    def end_run(self, planned: Collection[str], unread: Collection[str]) -> None:
        """Remove what is not part of this run: files it did not write, images not planned.

        unread: folders that are currently unreadable; outputs of their images stay.
        """
        self.flush()
        self._remove(
            [], [kept.path for kept in self.ledger.files(RUN) if kept.path not in self._run]
        )
        known = dict.fromkeys((*self.ledger.names(), *self.ledger.owners()))
        for name in known:
            if name != RUN and name not in planned and not is_below(name, unread):
                self._remove([name], [kept.path for kept in self.ledger.files(name)])
        self.ledger.write_entries()

    def _add(self, file: Staged) -> None:
        self._run.add(file.path)
        known, new = self.ledger.find(file.path), Kept(file.path, RUN, file.size, file.sha256)
        if known and replace(known, stamp=new.stamp) == new and self._is_intact(known, self.verify):
            Path(file.at).unlink()
            return
        sync_staged(Path(file.at))
        self._files.append(file)
        if len(self._files) >= TOGETHER:
            self.flush()

    def _place(self, outcomes: Sequence[Outcome], files: Sequence[Staged]) -> None:
        wanted = [(outcome.name, file) for outcome in outcomes for file in outcome.files]
        wanted += [(RUN, file) for file in files]
        # one refused file keeps back all of its image, but no other file of the run
        refused: dict[str, NotWritable] = {}
        for owner, file in wanted:
            try:
                self._check(file)
            except NotWritable as error:
                refused[owner or file.path] = error
        good = [(owner, file) for owner, file in wanted if (owner or file.path) not in refused]
        done = [outcome for outcome in outcomes if outcome.name not in refused]
        paths = {file.path for _, file in good}
        gone = [
            kept.path
            for outcome in done
            for kept in self.ledger.files(outcome.name)
            if kept.path not in paths and not outcome.unfit
        ]
        if good or done:
            staged = [_kept(owner, file, Path(file.at)) for owner, file in good]
            self.ledger.intend(staged, [outcome.name for outcome in done])
            with self._synced() as folders:
                for _, file in good:
                    self._move(file, folders)
                for path in gone:
                    self._unlink(path, folders)
            placed = [_kept(owner, file, self.root / file.path) for owner, file in good]
            self.ledger.confirm(placed, done, gone)
        for refusal in refused.values():
            raise refusal

    def _remove(self, names: Sequence[str], paths: Sequence[str]) -> None:
        with self._synced() as folders:
            for path in paths:
                self._unlink(path, folders)
        if names or paths:
            self.ledger.drop(names, paths)

    def _check(self, file: Staged) -> None:
        """Raise NotWritable for a file that must not be written."""
        if not is_ours(file.path):
            raise NotWritable(f"{file.path!r} leads out of {self.root}; name the image otherwise")
        self._folder(file.path)
        place = self.root / file.path
        try:
            place.lstat()
        except FileNotFoundError:
            return
        if _real(place) in self.inputs:
            raise NotWritable(
                f"{place} is an input and would be overwritten; choose another folder"
            )
        if is_same(place, file.size, file.sha256) or self._is_own(file.path, Path(file.at)):
            return
        raise NotWritable(
            f"{place} is there already, and not as segclip wrote it; move or delete it, or choose "
            "another folder"
        )

    def _folder(self, path: str) -> Path:
        """Return the folder of a file of ours, which is inside the output.

        Refuse links, which may lead anywhere.
        """
        folder = self.root
        for part in PurePosixPath(path).parts[:-1]:
            folder = folder / part
            try:
                mode = folder.lstat().st_mode
            except FileNotFoundError:
                continue
            except OSError as error:
                raise NotWritable(f"{folder}: {error.strerror or error}") from error
            if not stat.S_ISDIR(mode):
                what = "a link" if stat.S_ISLNK(mode) else "a file"
                raise NotWritable(
                    f"{folder} is {what}, where a folder is needed; move or delete it, or choose "
                    "another folder"
                )
        return folder

    def _move(self, file: Staged, folders: set[Path]) -> None:
        for last in (False, False, True):  # another part may remove a folder that is empty
            folder = self._folder(file.path)
            missing = []
            while not folder.exists():
                missing.append(folder)
                folder = folder.parent
            try:
                for made in reversed(missing):
                    made.mkdir(exist_ok=True)
                Path(file.at).replace(self.root / file.path)
            except FileNotFoundError:
                if last:
                    raise
                continue
            folders.update((folder, *missing))
            return

    def _unlink(self, path: str, folders: set[Path]) -> None:
        """Remove a file that belongs to a run, and folders that become empty."""
        try:
            folder = self._folder(path)
        except NotWritable:  # what replaced the folder is the user's
            return
        place = self.root / path
        if not is_ours(path) or _real(place) in self.inputs:
            return
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(place.lstat().st_mode):
                if self._is_own(path):
                    place.unlink()
                else:
                    log.warning("%s is not as segclip wrote it, and is kept", place)
        while folder != self.root:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:  # not empty
                break
            folders.discard(folder)
            folder = folder.parent
        folders.add(folder)

    @contextmanager
    def _synced(self) -> Iterator[set[Path]]:
        """Sync the folders in which names changed."""
        folders: set[Path] = set()
        try:
            yield folders
            for folder in folders:
                with suppress(FileNotFoundError):  # removed by another part
                    atomic.sync_folder(folder)
        except OSError as error:
            reason = error.strerror or str(error)
            raise NotWritable(
                f"{error.filename or self.root}: cannot be written, {reason}; what is done is "
                "kept, and the same command goes on from here"
            ) from error

    def _is_intact(self, kept: Kept, verify: bool) -> bool:
        place = self.root / kept.path
        try:
            self._folder(kept.path)
            stamp = stamp_of_link(place)
        except (OSError, NotWritable):
            return False
        if stamp == kept.stamp and not verify:
            return True
        if not is_same(place, kept.size, kept.sha256):
            return False
        if stamp != kept.stamp:
            self._touched[1].append((kept.path, stamp))
        return True

    def _is_own(self, path: str, new: Path | None = None) -> bool:
        """Return whether a run wrote what is at a path, even if damaged since.

        new: the file about to replace it, to recognise a truncated one.
        """
        place, known = self.root / path, self.ledger.possible(path)
        try:
            stamp = stamp_of_link(place)
            if any(stamp == kept.stamp or is_same(place, kept.size, kept.sha256) for kept in known):
                return True
            files = [kept for kept in known if not kept.sha256.startswith(LINK)]
            if not files or place.is_symlink() or not place.is_file():
                return False  # e.g. an original moved to where a link to it was
            # modification time and inode: of a file that nobody wrote to, but the disk damaged
            times = [(kept.stamp[1], kept.stamp[3]) for kept in files if kept.stamp[1]]
            return (stamp[1], stamp[3]) in times or is_torn(place, new)
        except OSError:
            return False


def real_paths(paths: Iterable[Path]) -> frozenset[str]:
    """Return the real paths of files and of link targets, which must not be overwritten."""
    folders: dict[Path, str] = {}
    found = set()
    for path in paths:
        if path.parent not in folders:
            folders[path.parent] = os.path.realpath(path.parent)
        found.add(os.path.join(folders[path.parent], path.name))
        if path.is_symlink():
            found.add(os.path.realpath(path))
    return frozenset(found)


def is_below(name: str, folders: Collection[str]) -> bool:
    """Return whether an image lies in one of the folders, by their names inside the input."""
    return any(parent.as_posix() in folders for parent in PurePosixPath(name).parents)


def _kept(owner: str, file: Staged, at: Path) -> Kept:
    return Kept(file.path, owner, file.size, file.sha256, stamp_of_placed(at))


def _real(path: Path) -> str:
    return os.path.join(os.path.realpath(path.parent), path.name)
