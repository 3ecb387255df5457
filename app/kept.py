"""Keep what was used last, within a number of entries and of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from threading import RLock
from time import monotonic
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_DEEPEST = 6  # levels of what a model found out that are weighed


@dataclass(frozen=True)
class Limits:
    """Say how much is kept.

    entries: at most. bytes: of all entries together. idle_bytes: of those not used for ``idle``
    seconds, None for no such limit.
    """

    entries: int
    bytes: int
    idle_bytes: int | None = None
    idle: float = 30.0


@dataclass
class _Entry(Generic[T]):
    value: T
    used: float = field(default_factory=monotonic)


class Kept(Generic[T]):
    """Hold entries by name; those longest unused go first, the newest stays whatever it weighs.

    limits: called whenever something may have to go. heavy: returns what of an entry takes memory;
    what several entries share counts once. gone: called with each entry that had to go.
    """

    def __init__(
        self,
        limits: Callable[[], Limits],
        *,
        heavy: Callable[[T], Any],
        gone: Callable[[T], None] = lambda value: None,
    ) -> None:
        self._limits = limits
        self._heavy = heavy
        self._gone = gone
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._entries)

    def values(self) -> list[T]:
        """Return the entries, the one longest unused first."""
        with self._lock:
            return [entry.value for entry in self._entries.values()]

    def put(self, name: str, value: T) -> None:
        """Keep an entry; others may have to go for it."""
        with self._lock:
            self._entries[name] = _Entry(value)
            self._entries.move_to_end(name)
        self.tidy()

    def find(self, name: str) -> T | None:
        """Return an entry, None where there is none, or none any more."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is None:
                return None
            entry.used = monotonic()
            self._entries.move_to_end(name)
            return entry.value

    def pop(self, name: str) -> T | None:
        """Forget an entry and return it; None where there is none."""
        with self._lock:
            entry = self._entries.pop(name, None)
        return None if entry is None else entry.value

    def tidy(self) -> bool:
        """Let go what is over the limits; return whether anything went."""
        limits = self._limits()
        with self._lock:
            names = list(self._entries)
            out = names[: -limits.entries]
            out += self._over(names, limits.bytes)
            if limits.idle_bytes is not None:
                long_ago = monotonic() - limits.idle
                idle = [name for name in names if self._entries[name].used < long_ago]
                out += self._over(idle, limits.idle_bytes, newest=False)
            went = [self._entries.pop(name).value for name in dict.fromkeys(out)]
        for value in went:
            self._gone(value)
        return bool(went)

    def _over(self, names: list[str], most: int, *, newest: bool = True) -> list[str]:
        """Name the entries, of ``names``, that do not fit; newest: the last fits whatever it
        weighs.
        """
        weighed: dict[int, int] = {}
        out = []
        for number, name in enumerate(reversed(names)):
            together = weighed | bytes_of(self._heavy(self._entries[name].value))
            if sum(together.values()) <= most or (newest and number == 0):
                weighed = together
            else:
                out.append(name)
        return out


def bytes_of(value: Any) -> dict[int, int]:
    """Weigh the arrays and tensors in an object: bytes by id, so that those held twice count
    once.
    """
    found: dict[int, int] = {}
    _weigh(value, found, _DEEPEST)
    return found


def _weigh(value: Any, found: dict[int, int], deep: int) -> None:
    if (
        value is None
        or isinstance(value, str | int | float | bool)
        or id(value) in found
        or deep < 0
    ):
        return
    if isinstance(value, bytes):
        found[id(value)] = len(value)
    elif isinstance(size := getattr(value, "nbytes", None), int):
        found[id(value)] = size
    elif isinstance(value, dict):
        for part in list(value.values()):
            _weigh(part, found, deep - 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in list(value):
            _weigh(part, found, deep - 1)
    elif is_dataclass(value) and not isinstance(value, type):
        for part in fields(value):
            _weigh(getattr(value, part.name, None), found, deep - 1)
