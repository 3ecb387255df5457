"""Answer other programs over HTTP: the same models, the same limits, next to the pages."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path as File
from threading import Lock
from time import perf_counter
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import Depends, FastAPI, Path, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import segclip

from ..kept import Kept, Limits
from ..plain import without_paths
from ..state import Known, Studio, Work
from ..turns import Full, Late, Left, Line, Turn, taking
from . import requests
from .schema import (
    Health,
    Opened,
    Problem,
    Searched,
    SearchFor,
    Segmented,
    SegmentThese,
    Sorted,
    SortThis,
)

MOST_PICTURES = 32
IDLE_BYTES = 30_000_000  # of pictures nobody has asked about for half a minute
AT_A_TIME = 4  # requests in work; others wait
WAITING = 32  # requests that may wait; whoever comes then is asked to come back
LARGE_AT_A_TIME, LARGE_WAITING = 1, 4  # of those that ask for much: the others go past them
LARGE = 8  # prompts, texts, negatives and boxes from which a request asks for much
PATIENCE = 60.0  # s a request may take, waiting included, once it has arrived
MOST_JSON = 4_000_000  # bytes
_RETRY = 5  # s after which who was refused may try again
_MOST_TOLD = 10  # things wrong with a request that are named
_GONE = 499  # the status that is counted for a client that went before it was answered
_TURN = "segclip.turn"  # where a request's scope holds its turn

_log = logging.getLogger(__name__)

T = TypeVar("T")
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request cannot be read."},
    404: {"model": Problem, "description": "No such picture, or none any more: send it again."},
    408: {"model": Problem, "description": "It came too slowly."},
    413: {"model": Problem, "description": "Too large."},
    422: {"model": Problem, "description": "It cannot be answered; the detail says why."},
    429: {
        "model": Problem,
        "description": "Too many wait already: come back after the seconds of Retry-After.",
    },
    503: {"model": Problem, "description": "Not answered in time, or a model is missing."},
}
_STATUS = {segclip.WeightsMissing: 503, segclip.WeightsCorrupt: 503}
PictureId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


class Gone(Exception):
    """Raise for a picture that is not there."""


class Pictures:
    """Keep the pictures sent last, with what was found out about them, by the hash of their
    bytes.
    """

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._works: Kept[Work] = Kept(self._limits, heavy=lambda work: work.heavy)

    def __len__(self) -> int:
        return len(self._works)

    def keep(self, data: bytes) -> tuple[str, Work]:
        """Give a picture's id. Raises BadImage."""
        name = sha256(data).hexdigest()[:32]
        work = self._works.find(name)
        if work is None:
            settings = self._studio.settings
            known = Known(self._studio.read(data, f"{name}.png"))
            work = Work(known, words=settings.words, clicks=settings.clicks)
            self._works.put(name, work)
        return name, work

    def find(self, name: str) -> Work:
        """Give a picture's work. Raises Gone."""
        work = self._works.find(name)
        if work is None:
            raise Gone(name)
        return work

    def drop(self, name: str) -> None:
        """Forget a picture. Raises Gone."""
        if self._works.pop(name) is None:
            raise Gone(name)

    def tidy(self) -> bool:
        """Let go of pictures over the limits; return whether any went."""
        return self._works.tidy()

    def _limits(self) -> Limits:
        return Limits(MOST_PICTURES, self._studio.settings.kept_mb * 1_000_000, IDLE_BYTES)


class Meter:
    """Count requests and the seconds they took, in Prometheus' text format."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, int]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._lock = Lock()

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        with self._lock:
            self._counts[path, status] += 1
            self._seconds[path] += seconds  # type: ignore[assignment]

    def text(self, pictures: int) -> str:
        """Give the counts."""
        lines = ["# TYPE segclip_requests_total counter"]
        with self._lock:
            for (path, status), count in sorted(self._counts.items()):
                lines.append(f'segclip_requests_total{{path="{path}",status="{status}"}} {count}')
            lines.append("# TYPE segclip_request_seconds_total counter")
            for path, seconds in sorted(self._seconds.items()):
                lines.append(f'segclip_request_seconds_total{{path="{path}"}} {seconds:.6f}')
        lines += ["# TYPE segclip_pictures gauge", f"segclip_pictures {pictures}"]
        if (memory := _memory()) is not None:
            lines += [
                "# TYPE process_resident_memory_bytes gauge",
                f"process_resident_memory_bytes {memory}",
            ]
        return "\n".join(lines) + "\n"


def _memory() -> int | None:
    """Give the bytes this process holds in memory, where the system tells it as Linux does."""
    try:
        pages = int(File("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


class Arriving:
    """Read a request's body, whole, within a limit; then begin its turn, which ends when its client
    goes.
    """

    def __init__(self, app: ASGIApp, *, most_image: int) -> None:
        self.app, self.most_image = app, most_image

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer 413."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = self.most_image if scope["path"].endswith("/images") else MOST_JSON
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > most:
                answer = refusal(413, f"the request is over {most / 1e6:.0f} MB")
                answer.headers["connection"] = "close"
                await answer(scope, receive, send)
                return
        await self._answer(scope, receive, send, bytes(body))

    async def _answer(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        turn = scope[_TURN] = Turn.lasting(PATIENCE)

        async def replay() -> Message:
            if not whole:
                await anyio.sleep_forever()
            return whole.pop()

        async def leave() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            turn.leave()

        async with anyio.create_task_group() as group:
            group.start_soon(leave)
            await self.app(scope, replay, send)
            group.cancel_scope.cancel()


class Counted:
    """Count every request, with its status and its seconds."""

    def __init__(self, app: ASGIApp, *, meter: Meter) -> None:
        self.app, self.meter = app, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass and count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = perf_counter(), _GONE

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Exception:
            status = 500
            raise
        finally:
            route = scope.get("route")
            path = route.path if isinstance(route, APIRoute) else "other"
            self.meter.count(path, status, perf_counter() - start)


def refusal(status: int, detail: object) -> Response:
    """Answer with a problem. Whatever the detail holds can be written: it may quote what came."""
    headers = {"retry-after": str(_RETRY)} if status in (429, 503) else None
    return Response(json.dumps({"detail": detail}), status, headers, "application/json")


def _turn_of(request: Request) -> Turn:
    turn: Turn = request.scope[_TURN]
    return turn


_Turn = Annotated[Turn, Depends(_turn_of)]


class Desk:
    """Let so many requests be worked on at a time; those that ask for much have fewer places of
    their own.
    """

    def __init__(self) -> None:
        self._small = Line(AT_A_TIME, WAITING)
        self._large = Line(LARGE_AT_A_TIME, LARGE_WAITING)
        self._threads = anyio.CapacityLimiter(2 * (AT_A_TIME + WAITING))

    async def work_on(self, turn: Turn, task: Callable[[], T], *, large: bool = False) -> T:
        """Do a task in a thread when its turn comes; it ends soon after the turn does. Raises Full,
        Left, Late.
        """
        line = self._large if large else self._small

        def run() -> T:
            with taking(turn), line.first():
                return task()

        return await anyio.to_thread.run_sync(run, limiter=self._threads)


def make_api(studio: Studio) -> FastAPI:
    """Make the API of a studio: its document is at ``openapi.json``."""
    api = FastAPI(title="segclip", version=segclip.__version__, docs_url=None, redoc_url=None)
    pictures, meter, desk = Pictures(studio), Meter(), Desk()
    api.state.pictures = pictures

    @api.get("/health", operation_id="health")
    async def health() -> Health:
        return Health(
            ok=True,
            version=segclip.__version__,
            loaded=list(studio.models.names),
            pictures=len(pictures),
        )

    @api.get("/metrics", operation_id="metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        return meter.text(len(pictures))

    @api.post("/images", operation_id="open", status_code=201, responses=_PROBLEMS)
    async def open_(image: UploadFile, turn: _Turn) -> Opened:
        data = await image.read()
        large = len(data) > studio.settings.upload_mb * 500_000
        name, work = await desk.work_on(turn, partial(pictures.keep, data), large=large)
        height, width = work.image.size
        return Opened(image=name, size=(height, width))

    @api.delete("/images/{name}", operation_id="close", status_code=204, responses=_PROBLEMS)
    async def close(name: PictureId) -> None:
        pictures.drop(name)

    @api.post("/segment", operation_id="segment", responses=_PROBLEMS)
    async def segment(ask: SegmentThese, turn: _Turn) -> Segmented:
        work = pictures.find(ask.image)
        large = ask.parts > LARGE or ask.masks != "rle"
        return await desk.work_on(turn, partial(requests.segment, studio, work, ask), large=large)

    @api.post("/classify", operation_id="classify", responses=_PROBLEMS)
    async def classify(ask: SortThis, turn: _Turn) -> Sorted:
        work = pictures.find(ask.image)
        large = len(ask.labels) + len(ask.boxes) > 10 * LARGE
        return await desk.work_on(turn, partial(requests.classify, studio, work, ask), large=large)

    @api.post("/search", operation_id="search", responses=_PROBLEMS)
    async def search(ask: SearchFor, turn: _Turn) -> Searched:
        example = pictures.find(ask.image).image if ask.image else None
        return Searched(
            matches=await desk.work_on(turn, partial(requests.search, studio, example, ask))
        )

    _refuse(api, studio)
    api.add_middleware(Arriving, most_image=studio.settings.upload_mb * 1_000_000 + 100_000)
    api.add_middleware(Counted, meter=meter)
    return api


def _refuse(api: FastAPI, studio: Studio) -> None:
    """Turn errors a caller can cause into answers; none quotes more than it must, or names the
    server's places.
    """
    settings = studio.settings
    places = (studio.index_place(), settings.photos, settings.runs, settings.indexes)

    @api.exception_handler(segclip.SegclipError)
    async def refuse(request: Request, error: segclip.SegclipError) -> Response:
        return refusal(_STATUS.get(type(error), 422), without_paths(str(error), places))

    @api.exception_handler(RequestValidationError)
    async def unread(request: Request, error: RequestValidationError) -> Response:
        wrong = [
            {
                "loc": [str(part)[:100] for part in one["loc"]],
                "msg": one["msg"][:500],
                "type": one["type"],
            }
            for one in error.errors()[:_MOST_TOLD]
        ]
        return refusal(422, wrong)

    @api.exception_handler(Gone)
    async def gone(request: Request, error: Gone) -> Response:
        return refusal(404, f"no picture {error}; send it to images")

    @api.exception_handler(Full)
    async def full(request: Request, error: Full) -> Response:
        return refusal(429, f"too many wait already; try again in {_RETRY} s")

    @api.exception_handler(Late)
    async def late(request: Request, error: Late) -> Response:
        return refusal(503, f"not answered within {PATIENCE:.0f} s; ask for less, or try later")

    @api.exception_handler(Left)
    async def left(request: Request, error: Left) -> Response:
        return refusal(408, "the client is gone")

    @api.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return refusal(500, "something broke that should not; the server's log says what")
