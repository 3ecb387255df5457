"""Middleware before all routes: allowed host names and origins, and slow or large bodies."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from time import monotonic
from urllib.parse import urlsplit

import anyio
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class BodyLimits:
    """Limits of the bodies of requests.

    lowest_rate: bytes/s, minimum average rate of a body. grace: seconds before that applies.
    longest: seconds for a whole body; 200 MB at a third of a MB/s. underway: bytes of bodies
    received for unanswered requests. held: bytes of uploads, which Streamlit keeps while their
    pages are open.
    """

    lowest_rate: int = 16_000
    grace: float = 10.0
    longest: float = 600.0
    underway: int = 600_000_000
    held: int = 2_000_000_000


@dataclass(frozen=True)
class Names:
    """Host names under which this server may be addressed.

    A foreign web page can let its own host name resolve to this machine, and then read what is
    served here (DNS rebinding); an IP address cannot be redirected. alone: only this machine is
    served. more: further names, such as that of a proxy.
    """

    alone: bool = True
    more: tuple[str, ...] = ()

    def known(self, name: str | None) -> bool:
        """Return whether a host name or address is one of this server's."""
        if not name:
            return False
        given = name.lower().rstrip(".")
        if given == "localhost" or given in {other.lower().rstrip(".") for other in self.more}:
            return True
        try:
            return ip_address(given.partition("%")[0]).is_loopback or not self.alone
        except ValueError:
            own = socket.gethostname().lower()
            return not self.alone and given in {own, f"{own}.local"}

    def refuse(self, hosts: Iterable[str], origins: Iterable[str]) -> str:
        """Return why a request is refused; "" for an allowed one.

        hosts, origins: its headers of these names. Browsers send the origin of the page that makes
        the request; programs send none.
        """
        given = list(hosts)
        host = _split(f"//{given[0]}") if len(given) == 1 else None
        if host is None or not self.known(host[0]):
            return "this host name is not allowed; start the server with --allow-host NAME"
        for origin in origins:
            page = _split(origin)
            if page is None or (page != host and page[0] not in self.more):
                return (
                    "requests from other sites are not allowed; use --allow-host NAME to allow one"
                )
        return ""


def _split(address: str) -> tuple[str, int | None] | None:
    """Return the host name and port of an address; None for an invalid one."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    return parts.hostname, port if port != _DEFAULT_PORTS.get(parts.scheme or "http") else None


class Guard:
    """Admit only requests to an allowed host name, from the server's own pages or from programs."""

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request or websocket on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        why = self.names.refuse(_headers(scope, b"host"), _headers(scope, b"origin"))
        if not why:
            await self.app(_without_origin(scope), receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
        else:
            await JSONResponse({"detail": why}, 403)(scope, receive, send)


def _without_origin(scope: Scope) -> Scope:
    """Remove the checked origin: Streamlit, unaware of proxies, would look up its address."""
    return {
        **scope,
        "headers": [(key, value) for key, value in scope["headers"] if key != b"origin"],
    }


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


class Paced:
    """Refuse bodies that arrive too slowly, and limit the bytes in memory.

    held: returns the bytes kept of earlier bodies.
    """

    def __init__(
        self,
        app: ASGIApp,
        held: Callable[[], int] = lambda: 0,
        *,
        limits: BodyLimits = BodyLimits(),
    ) -> None:
        self.app, self.limits, self._held = app, limits, held
        self._underway = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream a request's body, or respond with 408 or 429 and close the connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(self, receive, send)
        try:
            await self.app(scope, body.receive, body.send)
        except ClientDisconnect:
            if not body.refused:
                raise
        finally:
            self._underway -= body.bytes
        if body.refused:
            answer = JSONResponse({"detail": body.refused[1]}, body.refused[0])
            answer.headers.update({"connection": "close", "retry-after": "5"})
            await answer(scope, receive, send)

    def grow(self, count: int) -> bool:
        """Count bytes of a body; return whether there is room for them."""
        self._underway += count
        return self._underway <= self.limits.underway and (
            not count or self._held() <= self.limits.held
        )


class _Body:
    """One request's body; for the application a refused one looks like a disconnected client."""

    def __init__(self, paced: Paced, receive: Receive, send: Send) -> None:
        self._paced, self._receive, self._send = paced, receive, send
        self._start = monotonic()
        self._whole, self._answered = False, False
        self.bytes = 0
        self.refused: tuple[int, str] | None = None

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        if self.refused:
            return {"type": "http.disconnect"}
        limits = self._paced.limits
        until = self._start + min(limits.longest, limits.grace + self.bytes / limits.lowest_rate)
        message: Message = {"type": "http.disconnect"}
        with anyio.move_on_after(max(0.0, until - monotonic())) as waiting:
            message = await self._receive()
        if waiting.cancelled_caught:
            rate = limits.lowest_rate // 1000
            return self._refuse(
                408, f"the request arrived too slowly; at least {rate} kB/s are needed"
            )
        count = len(message.get("body", b""))
        self.bytes += count
        if not self._paced.grow(count):
            return self._refuse(429, "too much data is being uploaded at once; try later")
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self.refused and not self._answered:
            return  # the application's response to a disconnected client
        self._answered = True
        await self._send(message)

    def _refuse(self, status: int, why: str) -> Message:
        if not self._answered:
            self.refused = status, why
        return {"type": "http.disconnect"}
