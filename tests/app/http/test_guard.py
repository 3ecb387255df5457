"""Allowed host names and origins, and slow or large bodies, without a server."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import Response

from app.http.guard import BodyLimits, Names, Paced

each = pytest.mark.parametrize


EVERYONE, ALONE = Names(alone=False), Names(alone=True)
HURRIED = BodyLimits(grace=0.2)


@each("name", ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1"])
def test_local_names_are_allowed(name: str) -> None:
    assert ALONE.known(name)
    assert EVERYONE.known(name)


@each("name", ["192.168.1.7", "10.0.0.1", "fe80::1%eth0", "2001:db8::1", socket.gethostname()])
def test_ip_addresses_are_allowed_when_everyone_is_served(name: str) -> None:
    assert EVERYONE.known(name)
    assert not ALONE.known(name) or name == "localhost"


@each(
    "name",
    [
        "evil.test",
        "localhost.evil.test",
        "127.0.0.1.nip.io",
        "",
        None,
        "xn--",
        "0x7f.1.evil",
        "local host",
    ],
)
def test_foreign_names_are_refused(name: str | None) -> None:
    assert not ALONE.known(name)
    assert not EVERYONE.known(name)
    assert Names(True, ("proxy.test",)).known("Proxy.Test")


@each(
    ("host", "origin", "welcome"),
    [
        ("localhost:8501", None, True),
        ("localhost:8501", "http://localhost:8501", True),
        ("localhost", "http://localhost:80", True),
        ("localhost:8501", "http://localhost", False),
        ("localhost:8501", "http://localhost:3000", False),
        ("localhost:8501", "http://127.0.0.1:8501", False),
        ("localhost:8501", "null", False),
        ("localhost:8501", "http://proxy.test", True),
        ("proxy.test", "https://proxy.test", True),
        ("localhost:8501", "https://evil.test", False),
        ("localhost:port", None, False),
        ("localhost:99999", None, False),
        ("a@localhost", None, False),
        ("localhost/x", None, False),
        ("[::1]:8501", "http://[::1]:8501", True),
        ("[::1", None, False),
    ],
)
def test_foreign_origins_are_refused(host: str, origin: str | None, welcome: bool) -> None:
    """Fault 17.12c."""
    names = Names(alone=True, more=("proxy.test",))
    assert (names.refuse([host], [origin] if origin else []) == "") == welcome


def test_a_request_has_exactly_one_host() -> None:
    assert ALONE.refuse([], [])
    assert ALONE.refuse(["localhost", "localhost"], [])


def send_body(
    parts: list[tuple[float, bytes]],
    limits: BodyLimits = BodyLimits(),
    *,
    paced: Paced | None = None,
) -> tuple[list[dict[str, Any]], list[int]]:
    """Send a body in parts, each after some seconds; return the responses and lengths read."""
    read: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        read.append(len(await Request(scope, receive).body()))
        await Response("fine")(scope, receive, send)

    answered: list[dict[str, Any]] = []

    async def run() -> None:
        coming = iter(parts)

        async def receive() -> dict[str, Any]:
            for seconds, body in coming:
                await anyio.sleep(seconds)
                return {"type": "http.request", "body": body, "more_body": body != b""}
            await anyio.sleep_forever()
            raise AssertionError

        async def send(message: Any) -> None:
            answered.append(dict(message))

        await (paced or Paced(app, limits=limits))(
            {"type": "http", "headers": [], "method": "POST"}, receive, send
        )

    if paced is not None:
        paced.app = app
    anyio.run(run)
    return answered, read


def test_a_body_that_trickles_or_stops_is_refused() -> None:
    """Fault 17.12e."""
    dripping: list[tuple[float, bytes]] = [(0.05, b"x")] * 1000
    for parts in (dripping, [(0.0, b"x" * 1000)], []):
        answered, read = send_body(parts, HURRIED)
        assert answered[0]["status"] == 408
        assert (b"connection", b"close") in answered[0]["headers"]
        assert read == []


def test_a_steady_body_may_take_longer_than_the_grace() -> None:
    answered, read = send_body([*[(0.05, b"x" * 10_000)] * 10, (0, b"")], HURRIED)
    assert answered[0]["status"] == 200
    assert read == [100_000]


def test_the_longest_time_applies_at_any_rate() -> None:
    limits = replace(HURRIED, longest=0.3)
    answered, _ = send_body([(0.05, b"x" * 1_000_000)] * 100, limits)
    assert answered[0]["status"] == 408


def test_the_total_size_of_bodies_in_transit_is_limited() -> None:
    paced = Paced(lambda *_: None, limits=BodyLimits(underway=5000))  # type: ignore[arg-type]
    answered, _ = send_body([(0, b"x" * 3000), (0, b"x" * 3000), (0, b"")], paced=paced)
    assert answered[0]["status"] == 429
    assert (b"retry-after", b"5") in answered[0]["headers"]
    answered, read = send_body([(0, b"x" * 3000), (0, b"")], paced=paced)
    assert (answered[0]["status"], read) == (200, [3000])


def test_no_body_is_accepted_while_too_much_is_kept() -> None:
    """Fault 17.12e."""
    limits = BodyLimits(held=10)
    for held, status in ((11, 429), (9, 200)):
        paced = Paced(
            lambda *_: None,  # type: ignore[arg-type]
            held=lambda held=held: held,  # type: ignore[misc]
            limits=limits,
        )
        answered, _ = send_body([(0, b"x" * 3000), (0, b"")], paced=paced)
        assert answered[0]["status"] == status
