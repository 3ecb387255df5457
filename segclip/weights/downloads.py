"""Fetch one URL into one file: resumed after a cut, hashed as it streams, in place only when whole
and right.

Bytes arrive in ``NAME.part`` beside the target, with the server's ETag in ``NAME.part.etag``; a
lock keeps two processes from writing the same part. Any failure but wrong bytes keeps the part for
the next run. Nothing a server says is believed: what is no number, no address, too slow or not what
was asked for ends as one of segclip's own errors.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from filelock import FileLock, Timeout

from ..errors import SegclipError, WeightsCorrupt, WeightsMissing, one_line
from ..files import atomic
from .cache import hash_file

TIMEOUT = 30.0  # seconds of silence before a connection counts as cut
ANSWER = 60.0  # seconds until an answer's headers are there, with all its redirects
SLOWEST, PATIENCE = (
    2_000.0,
    60.0,
)  # bytes a second, over so many seconds, below which a connection counts as cut
DEADLINE = 24 * 3600.0  # seconds for one answer, however fast; what arrived is kept
LARGEST = 64 << 30  # bytes read of a file whose size nobody has published
CHUNK = 1 << 18
SPARE_BYTES = 16 << 20  # left free on the disk after a download

_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{0,200}"')  # a weak one can't vouch for bytes
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_NOT_THIS_PART = frozenset(
    {400, 405, 406, 409, 412, 416, 417, 501}
)  # answers that a request for the whole may not get

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Download:
    """Say what to fetch and where to.

    bytes, sha256: the expected ones, None where nobody has published them. check: called with the
    whole file before it is put in place; what it raises of segclip's errors refuses the file.
    """

    url: str
    target: Path
    bytes: int | None = None
    sha256: str | None = None
    check: Callable[[Path], None] | None = None


class Part:
    """Hold what has arrived of a file: its size, its running SHA-256, and the ETag it came
    under.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._etag_path = target.with_name(f"{target.name}.part.etag")
        self.size, self.hasher = 0, hashlib.sha256()
        if self.path.exists():
            self.size, self.hasher = self.path.stat().st_size, hash_file(self.path)

    @property
    def etag(self) -> str | None:
        """Give the ETag of the bytes held, None where the server gave none that can vouch for
        bytes.
        """
        with suppress(OSError, UnicodeDecodeError):
            return _strong(self._etag_path.read_text("ascii"))
        return None

    def drop(self) -> None:
        """Forget every byte."""
        self.path.unlink(missing_ok=True)
        self._etag_path.unlink(missing_ok=True)
        self.size, self.hasher = 0, hashlib.sha256()

    def restart(self, etag: str | None) -> None:
        """Forget every byte and hold the next ones under ``etag``, where it can vouch for them."""
        self.drop()
        if strong := _strong(etag):
            self._etag_path.write_text(strong, "ascii")

    def fill(self, response: HTTPResponse, tick: Callable[[int], None], limit: int | None) -> None:
        """Append a response's body, stopping as soon as ``limit`` bytes are exceeded; raise OSError
        for a slow one.
        """
        pace = _Pace()
        with self.path.open("ab") as file:
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                self.hasher.update(chunk)
                self.size += len(chunk)
                tick(len(chunk))
                if self.size > (LARGEST if limit is None else limit):
                    return
                pace.count(len(chunk))

    def publish(self, target: Path) -> None:
        """Put the finished file in place, atomically and on the disk."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.path, target)
        atomic.sync_folder(target.parent)
        self._etag_path.unlink(missing_ok=True)


class _Pace:
    """Watch how fast bytes arrive: a byte before each timeout would hold a connection for ever."""

    def __init__(self) -> None:
        self.began = self.since = time.monotonic()
        self.bytes = 0

    def count(self, arrived: int) -> None:
        """Count bytes; raise TimeoutError once PATIENCE seconds brought fewer than SLOWEST each, or
        after DEADLINE.
        """
        self.bytes += arrived
        now = time.monotonic()
        if now - self.began > DEADLINE:
            raise TimeoutError(f"it took longer than {DEADLINE:,.0f} s")
        if (passed := now - self.since) >= PATIENCE:
            if self.bytes < SLOWEST * passed:
                raise TimeoutError(f"only {self.bytes:,} bytes arrived in {passed:,.0f} s")
            self.since, self.bytes = now, 0


def _strong(etag: str | None) -> str | None:
    return etag if etag and _STRONG_ETAG.fullmatch(etag) else None


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keep every other process and thread from downloading ``target`` at the same time; waits for
    its turn.
    """
    lock = FileLock(f"{target}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, target.name)
    except OSError as error:
        raise WeightsMissing(
            f"cannot write in {target.parent}: {error}; set SEGCLIP_HOME to another folder"
        ) from error
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

    Raises WeightsMissing when the bytes can't be had now (the part is kept), WeightsCorrupt, or
    what ``job.check`` raises, when they are not the expected ones (nothing is kept).
    """
    part = Part(job.target)
    try:
        if not _is_whole(job, part):
            _transfer(job, part, progress)
        _refuse_wrong_bytes(job, part)
        part.publish(job.target)
    except (
        OSError,
        HTTPException,
        ValueError,
    ) as error:  # a ValueError of urllib's is an address that is none
        kept = (
            f"{part.size:,} bytes are kept; run it again to resume"
            if part.size
            else "nothing is kept"
        )
        reason = one_line(error)
        raise WeightsMissing(
            f"could not download {job.url} to {job.target}: {reason}; {kept}"
        ) from error
    return part.hasher.hexdigest()


def _is_whole(job: Download, part: Part) -> bool:
    return part.size > 0 and (part.size == job.bytes or part.hasher.hexdigest() == job.sha256)


def _transfer(job: Download, part: Part, progress: bool) -> None:
    with _connect(job, part) as response:
        length = _length(response)
        total = job.bytes if length is None else part.size + length
        _refuse_wrong_size(job, part, total)
        _need_room(job.target.parent, (total or 0) - part.size)
        with _meter(job.target.name, part.size, total, progress) as tick:
            part.fill(response, tick, total)
    if total is not None and part.size < total:
        raise ConnectionError(f"the connection was cut after {part.size:,} of {total:,} bytes")


def _connect(job: Download, part: Part) -> HTTPResponse:
    """Ask for what is missing; a server that can't continue this very part makes it start from
    nothing.
    """
    headers = {"User-Agent": "segclip", "Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        headers |= {"If-Range": part.etag} if part.etag else {}
    try:
        response = _open(Request(job.url, headers=headers))
    except HTTPError as error:
        error.close()
        if error.code not in _NOT_THIS_PART or not part.size:
            raise
        part.drop()
        return _connect(job, part)
    if response.status == 200:
        part.restart(response.headers.get("ETag"))
    elif not (part.size and _continues(response, part, job.bytes)):
        response.close()
        if not part.size:
            raise HTTPException(
                f"the server answered {response.status} to a request for the whole file"
            )
        part.drop()
        return _connect(job, part)
    return response


def _continues(response: HTTPResponse, part: Part, size: int | None) -> bool:
    """Tell whether an answer is the rest, all of it, of what a part holds the beginning of."""
    span = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if response.status != 206 or span is None or int(span[1]) != part.size:
        return False
    end, length = int(span[2]) + 1, _length(response)
    whole = {
        end,
        *([int(span[3])] if span[3] != "*" else []),
        *([size] if size is not None else []),
    }
    same = part.etag in (None, response.headers.get("ETag"))
    return same and len(whole) == 1 and length in (None, end - part.size)


def _length(response: HTTPResponse) -> int | None:
    """Read Content-Length, None where there is none; raises HTTPException for what is no number of
    bytes.
    """
    given = {
        part.strip()
        for value in response.headers.get_all("Content-Length", [])
        for part in value.split(",")
    }
    if len(given) > 1 or not all(re.fullmatch(r"[0-9]{1,19}", value) for value in given):
        raise HTTPException(
            f"the server says its Content-Length is {', '.join(sorted(given))[:60]!r}"
        )
    return int(given.pop()) if given else None


class _Redirects(HTTPRedirectHandler):
    """Follow redirects over the web only, and never from https to less."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """Follow one."""
        if not newurl.startswith(("https://", "http://")[: 1 if req.type == "https" else 2]):
            raise HTTPException(f"the server points to {newurl[:80]!r}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: Request) -> HTTPResponse:
    """Send a request and read the answer's headers within ANSWER seconds, however many bytes they
    trickle in by.
    """
    made: list[HTTPConnection] = []

    def note(kind: type[HTTPConnection], host: str, *, timeout: float) -> HTTPConnection:
        made.append(kind(host, timeout=timeout))
        return made[-1]

    class Plain(HTTPHandler):
        def http_open(self, req: Request) -> HTTPResponse:
            return self.do_open(partial(note, HTTPConnection), req)

    class Secure(HTTPSHandler):
        def https_open(self, req: Request) -> HTTPResponse:
            return self.do_open(partial(note, HTTPSConnection), req)

    def cut() -> None:
        for connection in made:
            with suppress(OSError, AttributeError):  # one that has no socket yet, or no longer
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = Timer(ANSWER, cut)
    timer.daemon = True
    timer.start()
    try:
        response: HTTPResponse = build_opener(Plain, Secure, _Redirects).open(
            request, timeout=TIMEOUT
        )
        return response
    finally:
        timer.cancel()


def _refuse_wrong_size(job: Download, part: Part, total: int | None) -> None:
    if job.bytes is not None and total != job.bytes:
        part.drop()
        raise WeightsCorrupt(
            f"{job.url} has {total:,} bytes, expected {job.bytes:,}; nothing was kept"
        )


def _refuse_wrong_bytes(job: Download, part: Part) -> None:
    _refuse_wrong_size(job, part, part.size)
    given = part.hasher.hexdigest()
    if job.sha256 is not None and given != job.sha256:
        part.drop()
        raise WeightsCorrupt(
            f"{job.url} has SHA-256 {given}, expected {job.sha256}; nothing was kept"
        )
    if job.check is not None:
        try:
            job.check(part.path)
        except SegclipError as error:
            part.drop()
            raise type(error)(
                f"{job.url} does not give what was wanted, and nothing was kept: {error}"
            ) from error


def _need_room(folder: Path, count: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < count + SPARE_BYTES:
        raise OSError(
            f"{count:,} bytes are needed, {free:,} are free; make room or set SEGCLIP_HOME to "
            "another disk"
        )


@contextmanager
def _meter(
    label: str, done: int, total: int | None, shown: bool
) -> Iterator[Callable[[int], None]]:
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
