"""Import the big libraries fast: without torch's compiler, which segclip never runs, and without
collecting garbage.
"""

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
    """Answer what libraries ask the compiler while they are imported; anything else brings the
    compiler itself.
    """

    def __getattr__(self, name: str) -> Any:
        package = (
            name == "__path__" and self.__name__ == _COMPILER
        )  # another of its modules is being imported
        if (
            name.startswith("__") and not package
        ):  # these are looked at in passing, by import and by inspect
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


def _disable(fn: Callable[..., Any] | None = None, recursive: bool = True, reason: str = "") -> Any:
    """Mark nothing: where no code is compiled, none needs to be left out."""
    return (lambda later: later) if fn is None else fn


@contextmanager
def without_compiler() -> Iterator[None]:
    """Import torchvision, timm and whatever needs them inside this block.

    They load torch._dynamo (3 s on a laptop) to decorate a function or ask whether a device could
    compile. Afterwards ``torch.compile`` works as ever: it imports the real one. Does nothing when
    that is imported already.
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
    """Import and load inside this block, a tenth faster: many objects are made and none of them is
    garbage.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _remove_stand_ins() -> None:
    for name in (_COMPILER, _UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]
