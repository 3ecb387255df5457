"""A real HTTP server on 127.0.0.1 for download tests: one body, and the manners of servers good and
bad.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Shelf:
    """Say what is served and how; every request's path and Range are written down.

    cut_after: break off one answer after so many bytes. pause_after: hold every answer there until
    ``go`` is set. headers: sent in place of ours of the same names. location: where /moved leads.
    refuse: the status that answers a request for a part. drip: seconds between bytes, of the
    headers too where ``slow_headers``.
    """

    body: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    if_range: bool = True
    length: bool = True
    cut_after: int | None = None
    pause_after: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    location: str = "/file"
    refuse: int | None = None
    drip: float = 0.0
    slow_headers: bool = False
    go: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *args: object) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        shelf = self.server.shelf
        shelf.requests.append((self.path, self.headers.get("Range")))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", shelf.location)
            self.end_headers()
        elif self.path == "/file":
            self._send_body(shelf)
        else:
            self.send_error(404)

    def _send_body(self, shelf: Shelf) -> None:
        start, total = self._start(shelf), len(shelf.body)
        if shelf.slow_headers:
            self._drip(b"HTTP/1.0 200 OK\r\nX-Long: " + b"x" * 10_000, shelf.drip)
            return
        if shelf.refuse and self.headers.get("Range"):
            self.send_error(shelf.refuse)
            return
        if start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        ours = {"Content-Range": f"bytes {start}-{total - 1}/{total}"} if start else {}
        ours |= {"Content-Length": str(total - start)} if shelf.length else {}
        ours |= {"ETag": shelf.etag} if shelf.etag else {}
        for name, value in (ours | shelf.headers).items():
            if start or name != "Content-Range":
                self.send_header(name, value)
        self.end_headers()
        if shelf.drip:
            self._drip(shelf.body[start:], shelf.drip)
            return
        cut, shelf.cut_after = shelf.cut_after, None
        end = total if cut is None else cut
        pause = end if shelf.pause_after is None else shelf.pause_after
        self.wfile.write(shelf.body[start:pause])
        if pause < end:
            shelf.go.wait(10)
            self.wfile.write(shelf.body[pause:end])

    def _drip(self, content: bytes, seconds: float) -> None:
        shelf = self.server.shelf
        for value in content:
            self.wfile.write(bytes([value]))
            if shelf.go.wait(seconds):
                return

    def _start(self, shelf: Shelf) -> int:
        wanted = self.headers.get("Range")
        changed = shelf.if_range and self.headers.get("If-Range") not in (None, shelf.etag)
        if wanted is None or changed or not shelf.ranges:
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    shelf: Shelf

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet when a client leaves early."""


@contextmanager
def serve(shelf: Shelf) -> Iterator[Shelf]:
    """Serve ``/file``, ``/moved`` (a redirect to it) and 404 for the rest until the block ends."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.shelf = shelf
        shelf.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        try:
            yield shelf
        finally:
            shelf.go.set()
            server.shutdown()
