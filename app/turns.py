"""Queues in order of arrival, for requests with a deadline.

An HTTP request has a deadline, and its client may disconnect. Long work is done in steps, and
between two of them ``check`` ends work that is no longer needed. Pages have no deadline. The turn
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

_POLL = 0.1  # s between two checks of the deadline while waiting for a lock


class Late(Exception):
    """The deadline of a request has passed."""


class Left(Exception):
    """The client of a request has disconnected."""


class Full(Exception):
    """Too many requests are waiting already."""


@dataclass(eq=False)
class Turn:
    """A request's deadline. until: by the clock of ``time.monotonic``."""

    until: float
    _left: Event = field(default_factory=Event)

    @classmethod
    def lasting(cls, seconds: float) -> Turn:
        """Start a turn that ends ``seconds`` from now."""
        return cls(monotonic() + seconds)

    @property
    def left(self) -> float:
        """Return the seconds left."""
        return self.until - monotonic()

    def leave(self) -> None:
        """End the turn, because the client has disconnected."""
        self._left.set()

    def check(self) -> None:
        """Raise Left or Late when the answer is no longer needed."""
        if self._left.is_set():
            raise Left
        if self.left <= 0:
            raise Late


_turn: ContextVar[Turn | None] = ContextVar("turn", default=None)  # None: no deadline
closing = Event()  # set when the server ends, which ends every turn


def check() -> None:
    """Raise Left or Late when the current work is no longer needed."""
    if (turn := _turn.get()) is None:
        return
    if closing.is_set():
        raise Late
    turn.check()


@contextmanager
def taking(turn: Turn) -> Iterator[None]:
    """Make ``turn`` the current one within the block."""
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
    """Hold a lock, waiting for it no longer than the turn lasts. Raises Left, Late."""
    while not lock.acquire(timeout=_POLL):
        check()
    try:
        check()
        yield
    finally:
        lock.release()


class Line:
    """Admit ``at_once`` threads, in order of arrival; a plain lock favours its last holder.

    most: threads that may wait; None for any number.
    """

    def __init__(self, at_once: int = 1, most: int | None = None) -> None:
        self._at_once, self._most = at_once, most
        self._places: deque[Event] = deque()  # of the running threads, then of the waiting ones
        self._mutex = Lock()

    def __len__(self) -> int:
        """Return the number of running and waiting threads."""
        return len(self._places)

    @contextmanager
    def first(self) -> Iterator[None]:
        """Wait for a turn. Raises Full, Left, Late."""
        place = Event()
        with self._mutex:
            if self._most is not None and len(self._places) >= self._at_once + self._most:
                raise Full
            self._places.append(place)
            self._wake()
        token = _held.set((*_held.get(), (self, place)))
        try:
            self._wait(place)
            yield
        finally:
            _held.reset(token)
            with self._mutex:
                self._places.remove(place)
                self._wake()

    def pass_on(self, place: Event) -> None:
        """Let the waiting threads go first, then resume. Raises Left, Late."""
        with self._mutex:
            if len(self._places) <= self._at_once:
                return
            self._places.remove(place)
            self._places.append(place)
            place.clear()
            self._wake()
        self._wait(place)

    def _wake(self) -> None:
        """Wake the threads whose turn it is."""
        for number, place in enumerate(self._places):
            if number >= self._at_once:
                break
            place.set()

    @staticmethod
    def _wait(place: Event) -> None:
        while not place.wait(_POLL):
            check()
        check()


_held: ContextVar[tuple[tuple[Line, Event], ...]] = ContextVar("held", default=())


def step() -> None:
    """Mark a step of long work: let waiting threads have a turn. Raises Left, Late.

    Only the line entered last is passed on: waiting for another one while threads wait for this one
    would be a deadlock.
    """
    check()
    if held := _held.get():
        line, place = held[-1]
        line.pass_on(place)
