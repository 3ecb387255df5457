"""Resolve names through tables of "module:attribute" strings, importing only what is used."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from .errors import UnknownName

T = TypeVar("T")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_WEIGHT_SUFFIXES = (".pt", ".pth", ".safetensors")


def choose(table: Mapping[str, T], name: str, noun: str) -> T:
    """Return ``table[name]``, or raise UnknownName listing the choices.

    noun: what the table holds, such as "format".
    """
    if name in table:
        return table[name]
    raise UnknownName(explain(table, name, noun))


def resolve(table: Mapping[str, str], name: str, noun: str) -> Any:
    """Import and return the object that ``table[name]``, "module:attribute", names.

    Raises UnknownName.
    """
    module, _, attribute = choose(table, name, noun).partition(":")
    return getattr(import_module(module), attribute)


def explain(names: Iterable[str], name: str, noun: str) -> str:
    """Return the message for a name not in ``names``: the nearest, all, and `file:` for a path."""
    choices = sorted(names)
    message = f"unknown {noun} {name!r}"
    nearest = difflib.get_close_matches(Path(name).stem.lower(), choices, n=1, cutoff=0.5)
    if looks_like_path(name):
        nearest = nearest or choices[:1]
        message += f"; for a file write {'file:' + name!r}" + "".join(
            f", for the known one {n!r}" for n in nearest
        )
    elif nearest:
        message += f"; did you mean {nearest[0]!r}?"
    return f"{message} (choices: {', '.join(choices) or 'none'})"


def looks_like_path(name: str) -> bool:
    """Return whether a name is probably a path: it has a folder or weight suffix, or exists."""
    separators = [os.sep, *([os.altsep] if os.altsep else [])]
    return (
        any(s in name for s in separators)
        or name.endswith(_WEIGHT_SUFFIXES)
        or bool(name and os.path.exists(name))
    )


def looks_like_address(name: str) -> bool:
    """Return whether a name is a web address, such as https://example.org/desk.jpg."""
    return bool(_ADDRESS.match(name))
