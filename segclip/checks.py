"""Reject command-line numbers that are not usable: nan, infinity, and integers beyond any array."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, get_type_hints

from .errors import BadPrompt

MOST = 2**31 - 1  # the largest size that NumPy, OpenCV and torch all accept
Verb = TypeVar("Verb", bound=Callable[..., Any])


def checked(verb: Verb) -> Verb:
    """Wrap a command so that every numeric argument is finite and at most MOST in magnitude.

    Complements the options' own ranges (``min``, ``max``), so that no option can omit the check.
    The wrapper raises BadPrompt.
    """
    hints = get_type_hints(verb, include_extras=True)

    @wraps(verb)
    def call(**values: Any) -> Any:
        for name, value in values.items():
            check(value, name, hints.get(name))
        return verb(**values)

    return call  # type: ignore[return-value]


def check(value: Any, name: str, hint: Any) -> None:
    """Raise BadPrompt for a number, alone or in a list, that is not finite or exceeds MOST.

    name, hint: of the parameter; they determine the flag named in the message.
    """
    for number in value if isinstance(value, list | tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise BadPrompt(f"{_flag(name, hint)} takes a finite number; got {number}")
        if isinstance(number, int | float) and abs(number) > MOST:
            raise BadPrompt(f"{_flag(name, hint)} takes a number up to {MOST}; got a larger one")


def _flag(name: str, hint: Any) -> str:
    """Return an option's flag: the declared one, else one made from the parameter's name."""
    extras = getattr(hint, "__metadata__", ())
    # inside Annotated, typer treats its ``default`` argument as the first declaration
    declared = [
        flag
        for extra in extras
        for flag in (getattr(extra, "default", None), *(extra.param_decls or ()))
    ]
    long = (flag for flag in declared if isinstance(flag, str) and flag.startswith("--"))
    return next(long, f"--{name.replace('_', '-')}").partition("/")[0]
