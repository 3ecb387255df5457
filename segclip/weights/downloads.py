"""Download a URL to a file: resumable, hashed while streaming, moved into place once verified.

Data arrive in ``NAME.part`` beside the target, with the server's ETag in ``NAME.part.etag``; a lock
keeps two processes from writing the same part. Any failure but wrong bytes keeps the part for the
next run. Servers are not trusted: malformed numbers or addresses, slow transfers and unexpected
responses raise segclip's own errors.
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
from http import HTTPStatus
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
HEADER_TIMEOUT = 60.0  # seconds until a response's headers have arrived, including redirects
# bytes per second, averaged over so many seconds, below which a connection counts as cut
MIN_RATE, PATIENCE = 2_000.0, 60.0
DEADLINE = 24 * 3600.0  # seconds for one response, however fast; what arrived is kept
LARGEST = 64 << 30  # bytes read of a file of unpublished size
CHUNK = 1 << 18
SPARE_BYTES = 16 << 20  # left free on the disk after a download

_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{0,200}"')  # a weak one does not identify exact bytes
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
# status codes on which to retry without a range
_RETRY_WHOLE = frozenset({400, 405, 406, 409, 412, 416, 417, 501})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Download:
    """A download job.

    bytes, sha256: expected; None if unpublished. check: called with the complete file before it is
    moved into place; a SegclipError that it raises rejects the file.
    """

    url: str
    target: Path
    bytes: int | None = None
    sha256: str | None = None
    check: Callable[[Path], None] | None = None


class Part:
    """A partial download: its size, running SHA-256, and ETag."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._etag_path = target.with_name(f"{target.name}.part.etag")
        self.size, self.hasher = 0, hashlib.sha256()
        if self.path.exists():
            self.size, self.hasher = self.path.stat().st_size, hash_file(self.path)

    @property
    def etag(self) -> str | None:
        """Return the strong ETag of the part, None if the server sent none."""
        with suppress(OSError, UnicodeDecodeError):
            return _strong(self._etag_path.read_text("ascii"))
        return None

    def drop(self) -> None:
        """Discard the part."""
        self.path.unlink(missing_ok=True)
        self._etag_path.unlink(missing_ok=True)
        self.size, self.hasher = 0, hashlib.sha256()

    def restart(self, etag: str | None) -> None:
        """Discard the part and begin another, of ``etag`` if that is a strong one."""
        self.drop()
        if strong := _strong(etag):
            self._etag_path.write_text(strong, "ascii")

    def fill(self, response: HTTPResponse, tick: Callable[[int], None], limit: int | None) -> None:
        """Append a response's body, stopping once ``limit`` is exceeded; raise OSError if slow.

        tick: called with the number of bytes of each chunk.
        """
        rate = _RateMonitor()
        with self.path.open("ab") as file:
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                self.hasher.update(chunk)
                self.size += len(chunk)
                tick(len(chunk))
                if self.size > (LARGEST if limit is None else limit):
                    return
                rate.count(len(chunk))

    def publish(self, target: Path) -> None:
        """Sync the finished file to disk and move it into place atomically."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        self.path.replace(target)
        atomic.sync_folder(target.parent)
        self._etag_path.unlink(missing_ok=True)


class _RateMonitor:
    """Minimum-rate check: a byte before each timeout would keep a connection open forever."""

    def __init__(self) -> None:
        self.began = self.since = time.monotonic()
        self.bytes = 0

    def count(self, arrived: int) -> None:
        """Count bytes; raise TimeoutError below MIN_RATE over PATIENCE, or past DEADLINE."""
        self.bytes += arrived
        now = time.monotonic()
        if now - self.began > DEADLINE:
            raise TimeoutError(f"it took longer than {DEADLINE:,.0f} s")
        if (passed := now - self.since) >= PATIENCE:
            if self.bytes < MIN_RATE * passed:
                raise TimeoutError(f"only {self.bytes:,} bytes arrived in {passed:,.0f} s")
            self.since, self.bytes = now, 0


def _strong(etag: str | None) -> str | None:
    return etag if etag and _STRONG_ETAG.fullmatch(etag) else None


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Wait for and hold the lock that serialises downloads of ``target`` across processes.

    Raises WeightsMissing when its folder is not writable.
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
    """Download ``job`` to its target and return its SHA-256; call it inside ``locked(job.target)``.

    Raises WeightsMissing when the download fails (the part is kept), and WeightsCorrupt, or what
    ``job.check`` raises, when the bytes are not the expected ones (nothing is kept).
    """
    part = Part(job.target)
    try:
        if not _is_whole(job, part):
            _transfer(job, part, progress)
        _refuse_wrong_bytes(job, part)
        part.publish(job.target)
    except (OSError, HTTPException, ValueError) as error:  # urllib: ValueError for a bad address
        kept = f"{part.size:,} bytes are kept; run it again to resume"
        raise WeightsMissing(
            f"could not download {job.url} to {job.target}: {one_line(error)}; "
            f"{kept if part.size else 'nothing is kept'}"
        ) from error
    return part.hasher.hexdigest()


def _is_whole(job: Download, part: Part) -> bool:
    return part.size > 0 and (part.size == job.bytes or part.hasher.hexdigest() == job.sha256)


def _transfer(job: Download, part: Part, progress: bool) -> None:
    with _connect(job, part) as response:
        length = _length(response)
        total = job.bytes if length is None else part.size + length
        _refuse_wrong_size(job, part, total)
        _require_space(job.target.parent, (total or 0) - part.size)
        with _progress_bar(job.target.name, part.size, total, progress) as tick:
            part.fill(response, tick, total)
    if total is not None and part.size < total:
        raise ConnectionError(f"the connection was cut after {part.size:,} of {total:,} bytes")


def _connect(job: Download, part: Part) -> HTTPResponse:
    """Request the missing bytes; start over if the server cannot resume this part."""
    headers = {"User-Agent": "segclip", "Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        headers |= {"If-Range": part.etag} if part.etag else {}
    try:
        response = _open(Request(job.url, headers=headers))
    except HTTPError as error:
        error.close()
        if error.code not in _RETRY_WHOLE or not part.size:
            raise
        part.drop()
        return _connect(job, part)
    if response.status == HTTPStatus.OK:
        part.restart(response.headers.get("ETag"))
    elif not (part.size and _continues(response, part, job.bytes)):
        response.close()
        if not part.size:
            raise HTTPException(
                f"the server returned status {response.status} to a request for the whole file"
            )
        part.drop()
        return _connect(job, part)
    return response


def _continues(response: HTTPResponse, part: Part, size: int | None) -> bool:
    """Return whether a response is the complete remainder of a part's file."""
    span = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if response.status != HTTPStatus.PARTIAL_CONTENT or span is None or int(span[1]) != part.size:
        return False
    end, length = int(span[2]) + 1, _length(response)
    sizes = {
        end,
        *([int(span[3])] if span[3] != "*" else []),
        *([size] if size is not None else []),
    }
    same = part.etag in (None, response.headers.get("ETag"))
    return same and len(sizes) == 1 and length in (None, end - part.size)


def _length(response: HTTPResponse) -> int | None:
    """Return Content-Length, None if absent. Raises HTTPException if it is not one number."""
    values = {
        part.strip()
        for value in response.headers.get_all("Content-Length", [])
        for part in value.split(",")
    }
    if len(values) > 1 or not all(re.fullmatch(r"[0-9]{1,19}", value) for value in values):
        raise HTTPException(
            f"the server sent an invalid Content-Length, {', '.join(sorted(values))[:60]!r}"
        )
    return int(values.pop()) if values else None


class _Redirects(HTTPRedirectHandler):
    """Redirects to http and https only, and never from https to http."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """Follow a redirect, or raise HTTPException."""
        if not newurl.startswith(("https://", "http://")[: 1 if req.type == "https" else 2]):
            fp.close()
            raise HTTPException(f"the server redirects to {newurl[:80]!r}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: Request) -> HTTPResponse:
    """Send a request and return the response once its headers arrived, within HEADER_TIMEOUT."""
    connections: list[HTTPConnection] = []

    def connect(kind: type[HTTPConnection], host: str, *, timeout: float) -> HTTPConnection:
        connections.append(kind(host, timeout=timeout))
        return connections[-1]

    class Plain(HTTPHandler):
        def http_open(self, req: Request) -> HTTPResponse:
            return self.do_open(partial(connect, HTTPConnection), req)

    class Secure(HTTPSHandler):
        def https_open(self, req: Request) -> HTTPResponse:
            return self.do_open(partial(connect, HTTPSConnection), req)

    def disconnect() -> None:
        for connection in connections:
            with suppress(OSError, AttributeError):  # it has no socket yet, or no longer
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = Timer(HEADER_TIMEOUT, disconnect)
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
                f"{job.url} does not provide the expected weights, and nothing was kept: {error}"
            ) from error


def _require_space(folder: Path, count: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < count + SPARE_BYTES:
        raise OSError(
            f"{count:,} bytes are needed, {free:,} are free; free disk space, or set SEGCLIP_HOME "
            "to a folder on another disk"
        )


@contextmanager
def _progress_bar(
    label: str, done: int, total: int | None, enabled: bool
) -> Iterator[Callable[[int], None]]:
    """Display bytes, rate and remaining time on stderr; yield a callback for arrived bytes."""
    if not enabled:
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
