"""Count requests by path and status, and measure the memory that the server takes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path as File
from threading import Lock
from time import perf_counter

from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_GONE = 499  # status counted for a client that disconnected before the response


class Meter:
    """Counts and durations of requests, in Prometheus' text format."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, int]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._lock = Lock()

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        with self._lock:
            self._counts[path, status] += 1
            self._seconds[path] += seconds  # type: ignore[assignment]

    def text(self, images: int) -> str:
        """Return the counts. images: number of images in memory."""
        lines = ["# TYPE segclip_requests_total counter"]
        with self._lock:
            for (path, status), count in sorted(self._counts.items()):
                lines.append(f'segclip_requests_total{{path="{path}",status="{status}"}} {count}')
            lines.append("# TYPE segclip_request_seconds_total counter")
            for path, seconds in sorted(self._seconds.items()):
                lines.append(f'segclip_request_seconds_total{{path="{path}"}} {seconds:.6f}')
        lines += ["# TYPE segclip_pictures gauge", f"segclip_pictures {images}"]
        if (memory := _memory()) is not None:
            lines += [
                "# TYPE process_resident_memory_bytes gauge",
                f"process_resident_memory_bytes {memory}",
            ]
        return "\n".join(lines) + "\n"


def _memory() -> int | None:
    """Return the resident memory in bytes; None where there is no /proc."""
    try:
        pages = int(File("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


class Counted:
    """Count every request with its status and duration."""

    def __init__(self, app: ASGIApp, *, meter: Meter) -> None:
        self.app, self.meter = app, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = perf_counter(), _GONE

        async def record_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, record_status)
        except Exception:
            status = 500
            raise
        finally:
            route = scope.get("route")
            path = route.path if isinstance(route, APIRoute) else "other"
            self.meter.count(path, status, perf_counter() - start)
