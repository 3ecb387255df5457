"""Answer other programs over HTTP: the same models, the same limits, next to the pages."""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path as File
from threading import Lock
from time import perf_counter
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import FastAPI, Path, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import segclip

from . import asked
from .schema import Health, Opened, Problem, Searched, SearchFor, Segmented, SegmentThese, Sorted, SortThis
from .state import Known, Studio, Work

MOST_PICTURES = 32
AT_A_TIME = 4  # requests in work; others wait
PATIENCE = 60.0  # s a request may take, waiting included

T = TypeVar("T")
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request cannot be read."},
    404: {"model": Problem, "description": "No such picture, or none any more: send it again."},
    413: {"model": Problem, "description": "Too large."},
    422: {"model": Problem, "description": "It cannot be answered; the detail says why."},
    503: {"model": Problem, "description": "Too busy, or a model is missing."},
}
_STATUS = {segclip.WeightsMissing: 503, segclip.WeightsCorrupt: 503}
PictureId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


class Gone(Exception):
    """Raise for a picture that is not there."""


class Pictures:
    """Keep the pictures sent last, with what was found out about them, by the hash of their bytes."""

    def __init__(self) -> None:
        self._works: OrderedDict[str, Work] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._works)

    def keep(self, studio: Studio, data: bytes) -> tuple[str, Work]:
        """Give a picture's id. Raises BadImage."""
        name = sha256(data).hexdigest()[:32]
        known = self._works.get(name)
        work = known or Work(
            Known(studio.read(data, f"{name}.png")), words=studio.settings.words, clicks=studio.settings.clicks
        )
        with self._lock:
            self._works[name] = work
            self._works.move_to_end(name)
            while len(self._works) > MOST_PICTURES:
                self._works.popitem(last=False)
        return name, work

    def find(self, name: str) -> Work:
        """Give a picture's work. Raises Gone."""
        with self._lock:
            if name not in self._works:
                raise Gone(name)
            self._works.move_to_end(name)
            return self._works[name]

    def drop(self, name: str) -> None:
        """Forget a picture. Raises Gone."""
        with self._lock:
            if self._works.pop(name, None) is None:
                raise Gone(name)


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
            lines += ["# TYPE process_resident_memory_bytes gauge", f"process_resident_memory_bytes {memory}"]
        return "\n".join(lines) + "\n"


def _memory() -> int | None:
    """Give the bytes this process holds in memory, where the system tells it as Linux does."""
    try:
        pages = int(File("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


class Limited:
    """Refuse bodies over a limit, whatever their header says of them."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer 413."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.most:
                limit = f"the request is over {self.most / 1e6:.0f} MB"
                await JSONResponse({"detail": limit}, 413, {"connection": "close"})(scope, receive, send)
                return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, replay, send)


def make_api(studio: Studio) -> FastAPI:
    """Make the API of a studio: its document is at ``openapi.json``."""
    api = FastAPI(title="segclip", version=segclip.__version__, docs_url=None, redoc_url=None)
    pictures, meter = Pictures(), Meter()
    turns = anyio.CapacityLimiter(AT_A_TIME)

    async def work_on(task: Callable[[], T]) -> T:
        with anyio.fail_after(PATIENCE):
            return await anyio.to_thread.run_sync(task, limiter=turns, abandon_on_cancel=True)

    @api.get("/health", operation_id="health")
    async def health() -> Health:
        return Health(ok=True, version=segclip.__version__, loaded=list(studio.models.names), pictures=len(pictures))

    @api.get("/metrics", operation_id="metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        return meter.text(len(pictures))

    @api.post("/images", operation_id="open", status_code=201, responses=_PROBLEMS)
    async def open_(image: UploadFile) -> Opened:
        data = await image.read()
        name, work = await work_on(partial(pictures.keep, studio, data))
        height, width = work.image.size
        return Opened(image=name, size=(height, width))

    @api.delete("/images/{name}", operation_id="close", status_code=204, responses=_PROBLEMS)
    async def close(name: PictureId) -> None:
        pictures.drop(name)

    @api.post("/segment", operation_id="segment", responses=_PROBLEMS)
    async def segment(ask: SegmentThese) -> Segmented:
        work = pictures.find(ask.image)
        return await work_on(partial(asked.segment, studio, work, ask))

    @api.post("/classify", operation_id="classify", responses=_PROBLEMS)
    async def classify(ask: SortThis) -> Sorted:
        work = pictures.find(ask.image)
        return await work_on(partial(asked.classify, studio, work, ask))

    @api.post("/search", operation_id="search", responses=_PROBLEMS)
    async def search(ask: SearchFor) -> Searched:
        example = pictures.find(ask.image).image if ask.image else None
        return Searched(matches=await work_on(partial(asked.search, studio, example, ask)))

    _listen(api, meter)
    api.add_middleware(Limited, most=studio.settings.upload_mb * 1_000_000 + 100_000)
    return api


def _listen(api: FastAPI, meter: Meter) -> None:
    """Count every request, and turn errors a caller can cause into answers."""

    @api.middleware("http")
    async def count(request: Request, forward: Callable[[Request], Any]) -> Any:
        start = perf_counter()
        response = await forward(request)
        route = request.scope.get("route")
        meter.count(getattr(route, "path", "other"), response.status_code, perf_counter() - start)
        return response

    @api.exception_handler(segclip.SegclipError)
    async def refuse(request: Request, error: segclip.SegclipError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, _STATUS.get(type(error), 422))

    @api.exception_handler(Gone)
    async def gone(request: Request, error: Gone) -> JSONResponse:
        return JSONResponse({"detail": f"no picture {error}; send it to images"}, 404)

    @api.exception_handler(TimeoutError)
    async def late(request: Request, error: TimeoutError) -> JSONResponse:
        return JSONResponse({"detail": f"not answered within {PATIENCE:.0f} s; try later"}, 503, {"retry-after": "5"})
