"""Requests counted by path and status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.responses import Response
from starlette.testclient import TestClient

from app.http.metering import Counted, Meter
from tests.app.http.clients import ask


def test_health_and_metrics_count(client: TestClient, opened: str) -> None:
    ask(client, opened, {"texts": ["a red box"]})
    assert client.get("/health").json()["loaded"] == ["mini"]
    metrics = client.get("/metrics").text
    assert 'segclip_requests_total{path="/segment",status="200"} 1' in metrics
    assert "segclip_pictures 1" in metrics


def test_every_end_of_a_request_is_counted() -> None:
    meter = Meter()

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError

    async def is_silent(scope: Any, receive: Any, send: Any) -> None: ...

    async def answers(scope: Any, receive: Any, send: Any) -> None:
        await Response("fine", 201)(scope, receive, send)

    async def discard(message: Any) -> None: ...

    async def nothing() -> Any: ...

    def send(app: Any, kind: str = "http") -> None:
        scope: Any = {"type": kind, "headers": [], "path": "/nowhere"}
        anyio.run(Counted(app, meter=meter), scope, nothing, discard)

    for app in (answers, is_silent):
        send(app)
    with pytest.raises(RuntimeError):
        send(fails)
    send(answers, "lifespan")
    for status in (201, 499, 500):
        assert f'segclip_requests_total{{path="other",status="{status}"}} 1' in meter.text(0)


def test_the_memory_of_the_process_is_measured() -> None:
    lines = dict(line.rsplit(" ", 1) for line in Meter().text(3).splitlines() if line[0] != "#")
    assert lines["segclip_pictures"] == "3"
    if Path("/proc/self/statm").exists():
        assert 1e7 < int(lines["process_resident_memory_bytes"]) < 1e12
