"""Record a test server's accesses to paths of a certain name and to other hosts.

Python imports this module first if its folder is on the path; ``SEGCLIP_TEST_WATCH`` names the
file of records.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

CANARY = "canary-17"  # in every path and name that is forged
_HERE = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "")


def _watch(notes: int) -> None:
    def note(kind: str, *what: object) -> None:
        text = " ".join(map(repr, what))
        if CANARY in text or kind.startswith("socket."):
            os.write(notes, f"{kind} {text}\n".encode("utf-8", "replace"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(("open", "os.", "subprocess", "shutil", "glob", "pathlib", "import")):
            note(event, *arguments[:2])
        elif event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
            address = arguments[1] if event == "socket.connect" else arguments[0]
            host = address[0] if isinstance(address, tuple) else address
            if isinstance(host, str) and host not in _HERE and not host.startswith(("/", "\0")):
                note(event, host)

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def noted(*arguments: Any, **named: Any) -> Any:
            note(call.__name__, *arguments[:1])
            return call(*arguments, **named)

        return noted

    for name in ("stat", "lstat", "access", "readlink"):  # which raise no audit event
        setattr(os, name, watched(getattr(os, name)))
    sys.addaudithook(hook)


if _file := os.environ.get("SEGCLIP_TEST_WATCH"):
    _watch(os.open(_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
