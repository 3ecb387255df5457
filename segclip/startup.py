"""Prepare torch: import it faster, without its unused compiler and GC, and set its threads."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
_UTILS = "torch._dynamo.utils"


class _StandIn(ModuleType):
    """Stub of a compiler module for import time; any other attribute loads the real module."""

    def __getattr__(self, name: str) -> Any:
        # __path__ of the package is read when one of its submodules is imported
        submodule = name == "__path__" and self.__name__ == _COMPILER
        # the import machinery and inspect probe dunders; that must not load the compiler
        if name.startswith("__") and not submodule:
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


def _disable(fn: Callable[..., Any] | None = None, recursive: bool = True, reason: str = "") -> Any:
    """Do nothing, in place of ``torch._dynamo.disable``: nothing is compiled."""
    return (lambda later: later) if fn is None else fn


@contextmanager
def without_compiler() -> Iterator[None]:
    """Stub out torch._dynamo while the block imports torchvision, timm and their dependents.

    They load torch._dynamo (3 s on a laptop) only to decorate a function or to query whether a
    device supports compilation. Afterwards ``torch.compile`` works as usual: it imports the real
    module. Does nothing if that is already imported.
    """
    if _COMPILER in sys.modules:
        yield
        return
    compiler, utils = _StandIn(_COMPILER), _StandIn(_UTILS)
    compiler.disable = _disable  # type: ignore[attr-defined]
    utils.is_compile_supported = lambda device_type: False  # type: ignore[attr-defined]
    sys.modules.update({_COMPILER: compiler, _UTILS: utils})
    try:
        yield
    finally:
        _remove_stand_ins()


@contextmanager
def without_collector() -> Iterator[None]:
    """Disable garbage collection in the block: imports and loading, a tenth faster without it."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def get_threads() -> int:
    """Return how many threads torch computes with in this thread."""
    import torch  # here, so that importing segclip stays light

    return int(torch.get_num_threads())


@contextmanager
def limit_threads(count: int, *, after: int) -> Iterator[None]:
    """Let torch compute with ``count`` threads in the block, and with ``after`` from then on.

    For servers that answer in several threads; where each sets its own count, the count before the
    block may be another's.
    """
    import torch

    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(after)


def _remove_stand_ins() -> None:
    for name in (_COMPILER, _UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]
