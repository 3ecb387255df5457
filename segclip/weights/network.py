"""Forbid network access: to what is loaded, or to a whole process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_offline = ContextVar("offline", default=False)


def is_offline() -> bool:
    """Return whether ``offline`` or SEGCLIP_OFFLINE forbids network access."""
    forbidden = os.environ.get("SEGCLIP_OFFLINE", "").lower() not in ("", "0", "false", "no")
    return forbidden or _offline.get()


@contextmanager
def offline(forbid: bool = True) -> Iterator[None]:
    """Forbid network access to what is loaded inside, unless ``forbid`` is False."""
    token = _offline.set(forbid or _offline.get())
    try:
        yield
    finally:
        _offline.reset(token)


def set_offline() -> None:
    """Forbid network access to this process and its children, for good; for commands.

    Applies to huggingface_hub only if that is not yet imported.
    """
    os.environ["SEGCLIP_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"
