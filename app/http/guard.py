"""Stand before everything that is served: who may ask under which name, and how long a request may
take to arrive.
"""

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

LOWEST_RATE = 16_000  # bytes a second that a body must come at, on average
GRACE = 10.0  # s before that counts
LONGEST = 600.0  # s a body may take in all: 200 MB at a third of a MB a second
MOST_UNDERWAY = 600_000_000  # bytes of bodies that have come, of requests not yet answered
# bytes of what people's browsers have sent, which Streamlit keeps while their pages are open
MOST_HELD = 2_000_000_000

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Names:
    """Say by which names this server may be called.

    A web page of somebody else's can let its own name point at this machine, and then read what is
    served here (DNS rebinding); a number cannot be made to point elsewhere. alone: this machine
    alone is served. more: further names, such as that of a proxy.
    """

    alone: bool = True
    more: tuple[str, ...] = ()

    def known(self, name: str | None) -> bool:
        """Tell whether a name or an address is one of this server's."""
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
        """Say why a request is refused: "" for one that is not.

        hosts, origins: its headers of these names. An origin is the page that a browser asks for;
        programs have none.
        """
        named = list(hosts)
        host = _split(f"//{named[0]}") if len(named) == 1 else None
        if host is None or not self.known(host[0]):
            return "this server does not go by that name; --allow-host NAME lets it"
        for origin in origins:
            page = _split(origin)
            if page is None or (page != host and page[0] not in self.more):
                return "pages of other sites may not ask this server; --allow-host NAME lets them"
        return ""


def _split(address: str) -> tuple[str, int | None] | None:
    """Return the name and the port of an address; None where it is none."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    return parts.hostname, port if port != _DEFAULT_PORTS.get(parts.scheme or "http") else None


class Guard:
    """Let only those in who call the server by its name, from its own pages or from none."""

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request or a websocket pass, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        why = self.names.refuse(_headers(scope, b"host"), _headers(scope, b"origin"))
        if not why:
            await self.app(_from_here(scope), receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
        else:
            await JSONResponse({"detail": why}, 403)(scope, receive, send)


def _from_here(scope: Scope) -> Scope:
    """Leave the origin out, which was checked: Streamlit knows no proxies, and would ask elsewhere
    for its address.
    """
    return {
        **scope,
        "headers": [(key, value) for key, value in scope["headers"] if key != b"origin"],
    }


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


class Paced:
    """Drop requests whose bodies come too slowly or not at all, and take no more of them than there
    is room for.

    held: returns the bytes kept of bodies that came before.
    """

    def __init__(self, app: ASGIApp, held: Callable[[], int] = lambda: 0) -> None:
        self.app, self._held = app, held
        self._underway = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request's body on as it comes, or answer 408 or 429 and close the connection."""
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
        """Count bytes of a body; whether there is room for them."""
        self._underway += count
        return self._underway <= MOST_UNDERWAY and (not count or self._held() <= MOST_HELD)


class _Body:
    """Watch one request's body on its way; a refused one ends for the application as if the client
    had gone.
    """

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
        until = self._start + min(LONGEST, GRACE + self.bytes / LOWEST_RATE)
        message: Message = {"type": "http.disconnect"}
        with anyio.move_on_after(max(0.0, until - monotonic())) as waiting:
            message = await self._receive()
        if waiting.cancelled_caught:
            return self._refuse(
                408, f"the request came too slowly; {LOWEST_RATE // 1000} kB a second are asked for"
            )
        count = len(message.get("body", b""))
        self.bytes += count
        if not self._paced.grow(count):
            return self._refuse(429, "too much is being sent at once; try later")
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self.refused and not self._answered:
            return  # what the application says of a client that it believes gone
        self._answered = True
        await self._send(message)

    def _refuse(self, status: int, why: str) -> Message:
        if not self._answered:
            self.refused = status, why
        return {"type": "http.disconnect"}
