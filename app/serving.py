"""Begin and end with the server: what is served beside the pages, what is tidied up meanwhile and
at the end.
"""

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
_SPOOLED = 1 << 30  # bytes: an upload stays in memory, whatever its size

_tidying: list[Callable[[], bool]] = []


def names() -> Names:
    """Return the names the server goes by."""
    settings = Settings.from_environment()
    return Names(settings.alone, settings.hosts)


def routes() -> list[BaseRoute]:
    """Return what is served beside the pages: the API, or that there is none."""
    MultiPartParser.spool_max_size = _SPOOLED
    if not Settings.from_environment().api:
        return [Route("/api/{path:path}", _off, methods=None), Route("/api", _off, methods=None)]
    from .http.api import make_api  # needs FastAPI, which the pages do without
    from .state import studio

    api = make_api(studio())
    _tidying.append(api.state.pictures.tidy)
    return [Mount("/api", api)]


def held() -> int:
    """Return the bytes of the uploads that Streamlit keeps, of everybody whose pages are open."""
    if not runtime.exists():
        return 0
    families = runtime.get_instance().uploaded_file_mgr.get_stats().values()
    return sum(one.byte_length for family in families for one in family)  # type: ignore[attr-defined]


async def _off(request: Request) -> Response:
    return JSONResponse({"detail": "the HTTP API is off; segclip app --api serves it"}, 404)


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Tidy up while the server runs, and remove what people left when it ends, also by SIGTERM."""
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
            if state := _state():
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(state.studio().close)


def _end_turns_on(number: int) -> None:
    """Let requests in work end at their next step on a signal: the server waits for them before it
    ends.
    """
    turns.closing.clear()
    former = signal.getsignal(number)
    if not callable(former) or threading.current_thread() is not threading.main_thread():
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        turns.closing.set()
        former(signum, frame)

    signal.signal(number, handle)


async def _tidy() -> None:
    """Let go of what is kept over the limits, and hand freed memory back to the system."""
    while True:
        await anyio.sleep(_TIDY)
        if state := _state():
            await anyio.to_thread.run_sync(state.studio().tidy)
        for tidy in _tidying:
            await anyio.to_thread.run_sync(tidy)
        await anyio.to_thread.run_sync(_trim)


def _state() -> Any:
    """Return the module of the studio, once a page or the API has opened it: it loads torch."""
    state = sys.modules.get(f"{__package__}.state")
    return state if state is not None and state.studio.cache_info().currsize else None


def _trim() -> None:
    """Hand freed memory back, where C's library keeps it otherwise, as glibc does."""
    gc.collect(1)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
