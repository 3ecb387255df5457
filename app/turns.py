"""Take turns: first come, first served, for as long as somebody still waits for the answer.

A request over HTTP has a deadline, and its client may leave. Long work is done in steps, and
between two of them ``check`` ends what nobody waits for any more. Pages have no deadline. The turn
is a context variable, not a parameter, because nearly every step between the request and a model's
lock is shared with the pages, which have none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Event, Lock
from time import monotonic
from typing import Any, Protocol

_GLANCE = 0.1  # s after which somebody who waits for a lock checks whether it is still worth it


class Late(Exception):
    """Raise when a request's time is over."""


class Left(Exception):
    """Raise when nobody waits for the answer any more."""


class Full(Exception):
    """Raise when too many wait already."""


@dataclass(eq=False)
class Turn:
    """Hold until when an answer is of use. until: by the clock of ``time.monotonic``."""

    until: float
    _left: Event = field(default_factory=Event)

    @classmethod
    def lasting(cls, seconds: float) -> Turn:
        """Begin a turn that ends so many seconds from now."""
        return cls(monotonic() + seconds)

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return self.until - monotonic()

    def leave(self) -> None:
        """End the turn: the client is gone."""
        self._left.set()

    def check(self) -> None:
        """Raise Left or Late unless somebody still waits for the answer."""
        if self._left.is_set():
            raise Left
        if self.left <= 0:
            raise Late


_turn: ContextVar[Turn | None] = ContextVar("turn", default=None)  # None: nobody is in a hurry
closing = Event()  # set when the server ends: every turn does


def check() -> None:
    """Raise Left or Late unless somebody still waits for what is being worked out here."""
    if (turn := _turn.get()) is None:
        return
    if closing.is_set():
        raise Late
    turn.check()


@contextmanager
def taking(turn: Turn) -> Iterator[None]:
    """Work for a turn within the block."""
    former = _turn.set(turn)
    try:
        turn.check()
        yield
    finally:
        _turn.reset(former)


class _Lock(Protocol):
    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...

    def release(self) -> Any: ...


@contextmanager
def holding(lock: _Lock) -> Iterator[None]:
    """Hold a lock, and wait for it no longer than the turn lasts. Raises Left, Late."""
    while not lock.acquire(timeout=_GLANCE):
        check()
    try:
        check()
        yield
    finally:
        lock.release()


class Line:
    """Let so many threads at a time in, in the order they came; a plain lock favours who releases
    it.

    most: that may wait; None for any number.
    """

    def __init__(self, at_once: int = 1, most: int | None = None) -> None:
        self._at_once, self._most = at_once, most
        self._places: deque[Event] = deque()  # of those inside, then of those who wait
        self._mutex = Lock()

    @contextmanager
    def first(self) -> Iterator[None]:
        """Wait until it is one's turn. Raises Full, Left, Late."""
        place = Event()
        with self._mutex:
            if self._most is not None and len(self._places) >= self._at_once + self._most:
                raise Full
            self._places.append(place)
            self._call()
        stood = _held.set((*_held.get(), (self, place)))
        try:
            self._wait(place)
            yield
        finally:
            _held.reset(stood)
            with self._mutex:
                self._places.remove(place)
                self._call()

    def pass_on(self, place: Event) -> None:
        """Let those who wait go first, and take one's turn again after them. Raises Left, Late."""
        with self._mutex:
            if len(self._places) <= self._at_once:
                return
            self._places.remove(place)
            self._places.append(place)
            place.clear()
            self._call()
        self._wait(place)

    def _call(self) -> None:
        """Tell those whose turn it is."""
        for number, place in enumerate(self._places):
            if number >= self._at_once:
                break
            place.set()

    @staticmethod
    def _wait(place: Event) -> None:
        while not place.wait(_GLANCE):
            check()
        check()


_held: ContextVar[tuple[tuple[Line, Event], ...]] = ContextVar("held", default=())


def step() -> None:
    """Go on with a long work: let those who wait for what is held have a turn. Raises Left, Late.

    Only the line entered last is passed on: to wait for one while others wait for what is held
    besides would be a deadlock.
    """
    check()
    if held := _held.get():
        line, place = held[-1]
        line.pass_on(place)
