"""Fetch one URL into one file: resumed after a cut, hashed as it streams, in place only when whole and right.

Bytes arrive in ``NAME.part`` beside the target, with the server's ETag in ``NAME.part.etag``; a lock keeps two
processes from writing the same part. Any failure but wrong bytes keeps the part for the next run.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout

from .cache import hash_file
from .errors import WeightsCorrupt, WeightsMissing

TIMEOUT = 30.0  # seconds of silence before a connection counts as cut
CHUNK = 1 << 18
SPARE_BYTES = 16 << 20  # left free on the disk after a download

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Download:
    """Say what to fetch and where to. bytes, sha256: the expected ones, None where nobody has published them."""

    url: str
    target: Path
    bytes: int | None = None
    sha256: str | None = None


class Part:
    """Hold what has arrived of a file: its size, its running SHA-256, and the ETag it came under."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._etag_path = target.with_name(f"{target.name}.part.etag")
        self.size, self.hasher = 0, hashlib.sha256()
        if self.path.exists():
            self.size, self.hasher = self.path.stat().st_size, hash_file(self.path)

    @property
    def etag(self) -> str | None:
        """Give the ETag of the bytes held, None where the server gave none."""
        return self._etag_path.read_text() if self._etag_path.exists() else None

    def drop(self) -> None:
        """Forget every byte."""
        self.path.unlink(missing_ok=True)
        self._etag_path.unlink(missing_ok=True)
        self.size, self.hasher = 0, hashlib.sha256()

    def restart(self, etag: str | None) -> None:
        """Forget every byte and hold the next ones under ``etag``; a weak one can't vouch for bytes and is ignored."""
        self.drop()
        if etag and not etag.startswith("W/"):
            self._etag_path.write_text(etag)

    def fill(self, response: HTTPResponse, tick: Callable[[int], None], limit: int | None) -> None:
        """Append a response's body, stopping as soon as ``limit`` bytes are exceeded."""
        with self.path.open("ab") as file:
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                self.hasher.update(chunk)
                self.size += len(chunk)
                tick(len(chunk))
                if limit is not None and self.size > limit:
                    return

    def publish(self, target: Path) -> None:
        """Put the finished file in place, atomically and on the disk."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.path, target)
        self._etag_path.unlink(missing_ok=True)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keep every other process and thread from downloading ``target`` at the same time; waits for its turn."""
    lock = FileLock(f"{target}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, target.name)
    except OSError as error:
        raise WeightsMissing(f"cannot write in {target.parent}: {error}; set SEGCLIP_HOME to another folder") from error
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, name: str) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("another process is downloading %s; waiting for it", name)
        lock.acquire()


def fetch(job: Download, *, progress: bool = True) -> str:
    """Download ``job`` to its target and give its SHA-256; call it inside ``locked(job.target)``.

    Raises WeightsMissing when the bytes can't be had now (the part is kept), WeightsCorrupt when they are not the
    expected ones (nothing is kept).
    """
    part = Part(job.target)
    try:
        if not _is_whole(job, part):
            _transfer(job, part, progress)
        _refuse_wrong_bytes(job, part)
        part.publish(job.target)
    except (OSError, HTTPException) as error:
        kept = f"{part.size:,} bytes are kept; run it again to resume" if part.size else "nothing is kept"
        raise WeightsMissing(f"could not download {job.url} to {job.target}: {error}; {kept}") from error
    return part.hasher.hexdigest()


def _is_whole(job: Download, part: Part) -> bool:
    return part.size > 0 and (part.size == job.bytes or part.hasher.hexdigest() == job.sha256)


def _transfer(job: Download, part: Part, progress: bool) -> None:
    with _connect(job, part) as response:
        length = response.headers.get("Content-Length")
        total = part.size + int(length) if length else job.bytes
        _refuse_wrong_size(job, part, total)
        _need_room(job.target.parent, (total or 0) - part.size)
        with _meter(job.target.name, part.size, total, progress) as tick:
            part.fill(response, tick, total)
    if total is not None and part.size < total:
        raise ConnectionError(f"the connection was cut after {part.size:,} of {total:,} bytes")


def _connect(job: Download, part: Part) -> HTTPResponse:
    """Ask for what is missing; a server that can't continue this very part makes it start from nothing."""
    headers = {"User-Agent": "segclip", "Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        headers |= {"If-Range": part.etag} if part.etag else {}
    try:
        response: HTTPResponse = urlopen(Request(job.url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != 416 or not part.size:
            raise
        part.drop()
        return _connect(job, part)
    etag = response.headers.get("ETag")
    if response.status != 206:
        part.restart(etag)
    elif part.size and not _continues(response, part):
        response.close()
        part.drop()
        return _connect(job, part)
    return response


def _continues(response: HTTPResponse, part: Part) -> bool:
    starts_here = response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-")
    return starts_here and part.etag in (None, response.headers.get("ETag"))


def _refuse_wrong_size(job: Download, part: Part, total: int | None) -> None:
    if job.bytes is not None and total != job.bytes:
        part.drop()
        raise WeightsCorrupt(f"{job.url} has {total:,} bytes, expected {job.bytes:,}; nothing was kept")


def _refuse_wrong_bytes(job: Download, part: Part) -> None:
    _refuse_wrong_size(job, part, part.size)
    given = part.hasher.hexdigest()
    if job.sha256 is not None and given != job.sha256:
        part.drop()
        raise WeightsCorrupt(f"{job.url} has SHA-256 {given}, expected {job.sha256}; nothing was kept")


def _need_room(folder: Path, count: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < count + SPARE_BYTES:
        raise OSError(f"{count:,} bytes are needed, {free:,} are free; make room or set SEGCLIP_HOME to another disk")


@contextmanager
def _meter(label: str, done: int, total: int | None, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show bytes, rate and time left on stderr."""
    if not shown:
        yield lambda count: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, completed=done, total=total)
        yield lambda count: bar.advance(task, count)
