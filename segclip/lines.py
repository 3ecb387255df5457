"""Read texts that people keep in files, one a line, the file "-" being standard input; print lines safely."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from .errors import BadPrompt

# What steers a terminal instead of being seen: control characters but line feed and tab, and changes of direction.
_UNSEEN = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
_UNSEEN |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def read(file: Path, what: str) -> list[str]:
    """Give the lines that hold anything, without blanks around them. Raises BadPrompt, which says ``what`` it is."""
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        text = data.decode("utf-8-sig")  # editors on Windows begin a file with a mark
    except UnicodeDecodeError as error:
        raise BadPrompt(f"{what} {file} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise BadPrompt(f"{what} {file} cannot be read: {error.strerror or error}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def visible(text: str) -> str:
    """Replace what would steer a terminal by its code, such as \\x1b: names and texts may hold anything."""
    return text.translate(_UNSEEN)


class _Visible:
    """Write text to a stream, made ``visible``."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # rich, which draws progress bars, steers the terminal on purpose

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        """Write a text; a carriage return at its start is a progress bar's."""
        bar = "\r" if text.startswith("\r") else ""
        return self.rich_proxied_file.write(bar + visible(text[len(bar) :]))

    def writelines(self, texts: list[str]) -> None:
        """Write several."""
        for text in texts:
            self.write(text)


@contextmanager
def shown_safely() -> Iterator[None]:
    """Make all that is printed meanwhile ``visible``, whoever prints it."""
    former = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _Visible(stream)) for stream in former)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = former
