"""Refuse numbers of the command line that no computation takes: nan, infinity, and integers beyond
all arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, get_type_hints

from .errors import BadPrompt

MOST = 2**31 - 1  # what NumPy, OpenCV and torch take for a size, everywhere
Verb = TypeVar("Verb", bound=Callable[..., Any])


def checked(verb: Verb) -> Verb:
    """Wrap a command's function so that each number it is given is finite and of a usable size;
    raises BadPrompt.

    Ranges are declared with the options (``min``, ``max``); this holds for all of them, so that
    none can forget it.
    """
    hints = get_type_hints(verb, include_extras=True)

    @wraps(verb)
    def call(**values: Any) -> Any:
        for name, value in values.items():
            check(value, name, hints.get(name))
        return verb(**values)

    return call  # type: ignore[return-value]


def check(value: Any, name: str, hint: Any) -> None:
    """Raise BadPrompt for a number, or one in a list, that is not finite or beyond MOST; anything
    else passes.

    name, hint: of the parameter, which say how its option is written.
    """
    for one in value if isinstance(value, list | tuple) else (value,):
        if isinstance(one, float) and not math.isfinite(one):
            raise BadPrompt(f"{_flag(name, hint)} takes a finite number; got {one}")
        if isinstance(one, int | float) and abs(one) > MOST:
            raise BadPrompt(f"{_flag(name, hint)} takes a number up to {MOST}; got a larger one")


def _flag(name: str, hint: Any) -> str:
    """Return how an option is written: as it is declared, or by its parameter's name."""
    extras = getattr(hint, "__metadata__", ())
    # inside Annotated, typer takes the first declaration for one though it calls it a default
    declared = [
        one
        for extra in extras
        for one in (getattr(extra, "default", None), *(extra.param_decls or ()))
    ]
    long = (one for one in declared if isinstance(one, str) and one.startswith("--"))
    return next(long, f"--{name.replace('_', '-')}").partition("/")[0]
