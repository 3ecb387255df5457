"""A least-recently-used cache, bounded by its entries and their bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from threading import RLock
from time import monotonic
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_DEEPEST = 6  # levels of nested objects whose size is measured


@dataclass(frozen=True)
class Limits:
    """Limits of a cache.

    bytes: of all entries together. idle_bytes: of the entries not used for ``idle`` seconds, None
    for no such limit.
    """

    entries: int
    bytes: int
    idle_bytes: int | None = None
    idle: float = 30.0


@dataclass
class _Entry(Generic[T]):
    value: T
    used: float  # when, in seconds of the clock


class LruCache(Generic[T]):
    """A cache by name; least recently used entries are evicted, the newest one never.

    limits: called before evicting. memory: returns the parts of an entry that take memory; parts
    that several entries share count once. on_evict: called with each evicted entry. clock: returns
    seconds, from any start.
    """

    def __init__(
        self,
        limits: Callable[[], Limits],
        *,
        memory: Callable[[T], Any],
        on_evict: Callable[[T], None] = lambda value: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._limits = limits
        self._memory = memory
        self._on_evict = on_evict
        self._clock = clock
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._entries)

    def values(self) -> list[T]:
        """Return the entries, least recently used first."""
        with self._lock:
            return [entry.value for entry in self._entries.values()]

    def put(self, name: str, value: T) -> None:
        """Add an entry; others may be evicted."""
        with self._lock:
            self._entries[name] = _Entry(value, self._clock())
            self._entries.move_to_end(name)
        self.tidy()

    def find(self, name: str) -> T | None:
        """Return an entry; None for an unknown or evicted one."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is None:
                return None
            entry.used = self._clock()
            self._entries.move_to_end(name)
            return entry.value

    def pop(self, name: str) -> T | None:
        """Remove an entry and return it; None for an unknown one."""
        with self._lock:
            entry = self._entries.pop(name, None)
        return None if entry is None else entry.value

    def tidy(self) -> bool:
        """Evict entries over the limits; return whether there were any."""
        limits = self._limits()
        with self._lock:
            names = list(self._entries)
            out = names[: -limits.entries]
            out += self._over(names, limits.bytes)
            if limits.idle_bytes is not None:
                long_ago = self._clock() - limits.idle
                idle = [name for name in names if self._entries[name].used < long_ago]
                out += self._over(idle, limits.idle_bytes, newest=False)
            went = [self._entries.pop(name).value for name in dict.fromkeys(out)]
        for value in went:
            self._on_evict(value)
        return bool(went)

    def _over(self, names: list[str], most: int, *, newest: bool = True) -> list[str]:
        """Return those of ``names`` that do not fit; newest: the last one always fits."""
        sizes: dict[int, int] = {}
        out = []
        for number, name in enumerate(reversed(names)):
            together = sizes | bytes_of(self._memory(self._entries[name].value))
            if sum(together.values()) <= most or (newest and number == 0):
                sizes = together
            else:
                out.append(name)
        return out


def bytes_of(value: Any) -> dict[int, int]:
    """Measure the arrays and tensors in an object: bytes by id, so that shared ones count once."""
    sizes: dict[int, int] = {}
    _measure(value, sizes, _DEEPEST)
    return sizes


def _measure(value: Any, sizes: dict[int, int], depth: int) -> None:
    if (
        value is None
        or isinstance(value, str | int | float | bool)
        or id(value) in sizes
        or depth < 0
    ):
        return
    if isinstance(value, bytes):
        sizes[id(value)] = len(value)
    elif isinstance(size := getattr(value, "nbytes", None), int):
        sizes[id(value)] = size
    elif isinstance(value, dict):
        for part in list(value.values()):
            _measure(part, sizes, depth - 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in list(value):
            _measure(part, sizes, depth - 1)
    elif is_dataclass(value) and not isinstance(value, type):
        for part in fields(value):
            _measure(getattr(value, part.name, None), sizes, depth - 1)
