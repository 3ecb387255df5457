"""The HTTP API: the same models and limits as the pages, for other programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from time import monotonic
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import Depends, FastAPI, Path, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import segclip

from ..kept import Limits, LruCache
from ..plain import without_paths
from ..state import CachedImage, Studio, Work
from ..turns import Full, Late, Left, Line, Turn, taking
from . import requests
from .metering import Counted, Meter
from .schema import (
    ClassifyRequest,
    ClassifyResponse,
    Health,
    OpenedImage,
    Problem,
    SearchRequest,
    SearchResponse,
    SegmentRequest,
    SegmentResponse,
)

MOST_IMAGES = 32
IDLE_BYTES = 30_000_000  # of images unused for half a minute
AT_A_TIME = 4  # requests at once; others wait
WAITING = 32  # waiting requests; further ones are refused with 429
LARGE_AT_A_TIME, LARGE_WAITING = 1, 4  # for large requests, which the others overtake
LARGE = 8  # prompts, texts, negatives and boxes above which a request is large
PATIENCE = 60.0  # s
MOST_JSON = 4_000_000  # bytes
_RETRY = 5  # s of Retry-After
_MOST_ERRORS = 10  # validation errors listed in a response
_TURN = "segclip.turn"  # key of the turn in a request's scope

_log = logging.getLogger(__name__)

T = TypeVar("T")
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request cannot be read."},
    404: {"model": Problem, "description": "No such image, or it was evicted: upload it again."},
    408: {"model": Problem, "description": "The request arrived too slowly."},
    413: {"model": Problem, "description": "Too large."},
    422: {
        "model": Problem,
        "description": "The request cannot be answered; the detail explains why.",
    },
    429: {
        "model": Problem,
        "description": "Too many requests are waiting: retry after the seconds of Retry-After.",
    },
    503: {"model": Problem, "description": "Not answered in time, or a model is missing."},
}
_STATUS = {segclip.WeightsMissing: 503, segclip.WeightsCorrupt: 503}
ImageId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


class Gone(Exception):
    """No such image, or it was evicted."""


class ImageStore:
    """The most recently used images with their cached results, by the hash of their bytes.

    clock: as in ``LruCache``.
    """

    def __init__(self, studio: Studio, *, clock: Callable[[], float] = monotonic) -> None:
        self._studio = studio
        self._works: LruCache[Work] = LruCache(
            self._limits, memory=lambda work: work.memory, clock=clock
        )

    def __len__(self) -> int:
        return len(self._works)

    def keep(self, data: bytes) -> tuple[str, Work]:
        """Add an image and return its id and work. Raises BadImage."""
        name = sha256(data).hexdigest()[:32]
        work = self._works.find(name)
        if work is None:
            settings = self._studio.settings
            cached = CachedImage(self._studio.read(data, f"{name}.png"))
            work = Work(cached, words=settings.words, clicks=settings.clicks)
            self._works.put(name, work)
        return name, work

    def find(self, name: str) -> Work:
        """Return an image's work. Raises Gone."""
        work = self._works.find(name)
        if work is None:
            raise Gone(name)
        return work

    def drop(self, name: str) -> None:
        """Remove an image. Raises Gone."""
        if self._works.pop(name) is None:
            raise Gone(name)

    def tidy(self) -> bool:
        """Evict images over the limits; return whether there were any."""
        return self._works.tidy()

    def _limits(self) -> Limits:
        return Limits(MOST_IMAGES, self._studio.settings.kept_mb * 1_000_000, IDLE_BYTES)


class Arriving:
    """Read a request's whole body within a limit, then start its turn.

    The turn ends when the client disconnects, or after ``patience`` seconds.
    """

    def __init__(self, app: ASGIApp, *, most_image: int, patience: float) -> None:
        self.app, self.most_image, self.patience = app, most_image, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or respond with 413."""
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
                answer = refusal(
                    413, f"the request is larger than the limit of {most / 1e6:.0f} MB"
                )
                answer.headers["connection"] = "close"
                await answer(scope, receive, send)
                return
        await self._answer(scope, receive, send, bytes(body))

    async def _answer(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        turn = scope[_TURN] = Turn.lasting(self.patience)

        async def replay() -> Message:
            if not messages:
                await anyio.sleep_forever()
            return messages.pop()

        async def leave() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            turn.leave()

        async with anyio.create_task_group() as group:
            group.start_soon(leave)
            await self.app(scope, replay, send)
            group.cancel_scope.cancel()


def refusal(status: int, detail: object) -> Response:
    """Return an error response; json.dumps escapes any input that the detail quotes."""
    headers = {"retry-after": str(_RETRY)} if status in (429, 503) else None
    return Response(json.dumps({"detail": detail}), status, headers, "application/json")


def _turn_of(request: Request) -> Turn:
    turn: Turn = request.scope[_TURN]
    return turn


_Turn = Annotated[Turn, Depends(_turn_of)]


class RequestQueue:
    """Limits the requests at work; large ones have a smaller queue of their own."""

    def __init__(self) -> None:
        self._small = Line(AT_A_TIME, WAITING)
        self._large = Line(LARGE_AT_A_TIME, LARGE_WAITING)
        self._threads = anyio.CapacityLimiter(2 * (AT_A_TIME + WAITING))

    async def run(self, turn: Turn, task: Callable[[], T], *, large: bool = False) -> T:
        """Run a task in a thread when its turn comes; it stops soon after the turn ends.

        Raises Full, Left, Late.
        """
        line = self._large if large else self._small

        def wait_and_run() -> T:
            with taking(turn), line.first():
                return task()

        return await anyio.to_thread.run_sync(wait_and_run, limiter=self._threads)


def make_api(studio: Studio, *, patience: float = PATIENCE) -> FastAPI:
    """Return the API of a studio; its schema is at ``openapi.json``.

    patience: seconds that a request may take, waiting included, once it has arrived.
    """
    api = FastAPI(title="segclip", version=segclip.__version__, docs_url=None, redoc_url=None)
    images, meter, queue = ImageStore(studio), Meter(), RequestQueue()
    api.state.images = images

    @api.get("/health", operation_id="health")
    async def health() -> Health:
        return Health(
            ok=True,
            version=segclip.__version__,
            loaded=list(studio.models.names),
            pictures=len(images),
        )

    @api.get("/metrics", operation_id="metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        return meter.text(len(images))

    @api.post("/images", operation_id="open", status_code=201, responses=_PROBLEMS)
    async def open_(image: UploadFile, turn: _Turn) -> OpenedImage:
        data = await image.read()
        large = len(data) > studio.settings.upload_mb * 500_000
        name, work = await queue.run(turn, partial(images.keep, data), large=large)
        height, width = work.image.size
        return OpenedImage(image=name, size=(height, width))

    @api.delete("/images/{name}", operation_id="close", status_code=204, responses=_PROBLEMS)
    async def close(name: ImageId) -> None:
        images.drop(name)

    @api.post("/segment", operation_id="segment", responses=_PROBLEMS)
    async def segment(query: SegmentRequest, turn: _Turn) -> SegmentResponse:
        work = images.find(query.image)
        large = query.parts > LARGE or query.masks != "rle"
        return await queue.run(turn, partial(requests.segment, studio, work, query), large=large)

    @api.post("/classify", operation_id="classify", responses=_PROBLEMS)
    async def classify(query: ClassifyRequest, turn: _Turn) -> ClassifyResponse:
        work = images.find(query.image)
        large = len(query.labels) + len(query.boxes) > 10 * LARGE
        return await queue.run(turn, partial(requests.classify, studio, work, query), large=large)

    @api.post("/search", operation_id="search", responses=_PROBLEMS)
    async def search(query: SearchRequest, turn: _Turn) -> SearchResponse:
        example = images.find(query.image).image if query.image else None
        task = partial(requests.search, studio, example, query)
        return SearchResponse(matches=await queue.run(turn, task))

    _handle_errors(api, studio, patience)
    most_image = studio.settings.upload_mb * 1_000_000 + 100_000
    api.add_middleware(Arriving, most_image=most_image, patience=patience)
    api.add_middleware(Counted, meter=meter)
    return api


def _handle_errors(api: FastAPI, studio: Studio, patience: float) -> None:
    """Turn errors into short responses that reveal none of the server's paths."""

    @api.exception_handler(segclip.SegclipError)
    async def refuse(request: Request, error: segclip.SegclipError) -> Response:
        return refusal(_STATUS.get(type(error), 422), without_paths(str(error), studio.folders))

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        problems = [
            {
                "loc": [str(part)[:100] for part in one["loc"]],
                "msg": one["msg"][:500],
                "type": one["type"],
            }
            for one in error.errors()[:_MOST_ERRORS]
        ]
        return refusal(422, problems)

    @api.exception_handler(Gone)
    async def gone(request: Request, error: Gone) -> Response:
        return refusal(404, f"no image {error}; upload it with POST /images")

    late = f"not answered within {patience:.0f} s; send a smaller request, or try later"
    for kind, status, reason in (
        (Full, 429, f"too many requests are waiting; try again in {_RETRY} s"),
        (Late, 503, late),
        (Left, 408, "the client disconnected"),
        (Exception, 500, "internal error; see the server's log"),
    ):
        api.add_exception_handler(kind, partial(_refuse_with, status, reason))


async def _refuse_with(status: int, reason: str, request: Request, error: Exception) -> Response:
    return refusal(status, reason)
