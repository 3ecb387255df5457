"""The server's routes and lifetime: periodic and final clean-up."""

from __future__ import annotations

import ctypes
import gc
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any

import anyio
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from streamlit import runtime

from . import turns
from .http.guard import Names
from .jobs.scratch import Scratch, place
from .settings import Settings

_TIDY = 10.0  # s
_SPOOLED = 1 << 30  # bytes, above any upload: uploads stay in memory

_tidying: list[Callable[[], bool]] = []


def names() -> Names:
    """Return the host names under which the server may be addressed."""
    settings = Settings.from_environment()
    return Names(settings.alone, settings.hosts)


def routes() -> list[BaseRoute]:
    """Return the routes besides the pages: the API, or a reply that it is off."""
    MultiPartParser.spool_max_size = _SPOOLED
    if not Settings.from_environment().api:
        return [Route("/api/{path:path}", _off, methods=None), Route("/api", _off, methods=None)]
    from .http.api import make_api  # needs FastAPI, which the pages do not
    from .state import studio

    api = make_api(studio())
    _tidying.append(api.state.images.tidy)
    return [Mount("/api", api)]


def held() -> int:
    """Return the bytes of all uploads that Streamlit keeps for open pages."""
    if not runtime.exists():
        return 0
    families = runtime.get_instance().uploaded_file_mgr.get_stats().values()
    return sum(one.byte_length for family in families for one in family)  # type: ignore[attr-defined]


async def _off(request: Request) -> Response:
    return JSONResponse({"detail": "the HTTP API is off; start it with segclip app --api"}, 404)


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Clean up periodically, and remove all user files at the end, also on SIGTERM."""
    settings = Settings.from_environment()
    _end_turns_on(signal.SIGTERM)
    _end_turns_on(signal.SIGINT)
    await anyio.to_thread.run_sync(Scratch(place(settings.scratch)).sweep)
    async with anyio.create_task_group() as group:
        group.start_soon(_tidy)
        try:
            yield
        finally:
            group.cancel_scope.cancel()
            if (studio := _studio()) is not None:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(studio.close)


def _end_turns_on(number: int) -> None:
    """On a signal, end running requests at their next step: the server waits for them to exit."""
    turns.closing.clear()
    former = signal.getsignal(number)
    if not callable(former) or threading.current_thread() is not threading.main_thread():
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        turns.closing.set()
        former(signum, frame)

    signal.signal(number, handle)


async def _tidy() -> None:
    """Evict entries over the limits, and return freed memory to the system."""
    while True:
        await anyio.sleep(_TIDY)
        if (studio := _studio()) is not None:
            await anyio.to_thread.run_sync(studio.tidy)
        for tidy in _tidying:
            await anyio.to_thread.run_sync(tidy)
        await anyio.to_thread.run_sync(_trim)


def _studio() -> Any:
    """Return the studio if a page or the API has made it; importing its module loads torch."""
    # a first page may be importing it now, which takes longer than one clean-up to the next
    made = getattr(sys.modules.get(f"{__package__}.state"), "studio", None)
    return made() if made is not None and made.cache_info().currsize else None


def _trim() -> None:
    """Return freed memory to the system, which glibc would keep."""
    gc.collect(1)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
