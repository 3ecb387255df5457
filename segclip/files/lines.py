"""Read the text files that people write, from a file, a pipe or standard input ("-"); print lines
safely.
"""

from __future__ import annotations

import os
import re
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from ..errors import BadTable

FILE_LIMIT = 4 << 30  # bytes of a file
STREAM_LIMIT = 64 << 20  # bytes of a pipe, a device or standard input, whose end nobody knows
PATIENCE = 30.0  # s until a pipe's writer sends something
# characters of one text, caption or label; also what Python's csv module reads of a cell
VALUE_LIMIT = 131_072

_CHUNK = 1 << 20  # bytes
_BINARY = bytes(64)  # no text holds so many NULs in a row; single ones are told where they stand
_ENDS = re.compile(
    r"\r\n|\r|\n"
)  # str.splitlines also ends lines at U+2028 and the like, which texts hold
# What steers a terminal instead of being seen: control characters but line feed and tab, and
# changes of direction.
_UNSEEN = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
}
_UNSEEN |= {
    code: f"\\u{code:04x}"
    for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def read(file: Path, what: str) -> list[str]:
    """Return the lines that hold anything, without the blanks around them.

    what: names the file in messages. Raises BadTable, with the number of the line.
    """
    found = []
    for number, text in numbered(read_text(file, what)):
        if problem := fault(text):
            raise BadTable(f"{what} {file}, line {number}: {problem}")
        found.append(text)
    return found


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that hold anything, without the blanks around them, and their numbers
    from 1.
    """
    for number, line in enumerate(_ENDS.split(text), 1):
        if kept := line.strip():
            yield number, kept


def read_text(file: Path, what: str) -> str:
    """Return all of a file, without the mark that editors on Windows begin it with. Raises
    BadTable.
    """
    parts: list[bytes] = []
    try:
        for chunk in _chunks(file):
            if _BINARY in chunk:
                raise BadTable(f"{what} {file} is not UTF-8 text: it holds NUL bytes")
            parts.append(chunk)
        return b"".join(parts).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = f"{error.reason} at byte {error.start}, in line {line}"
        raise BadTable(f"{what} {file} is not UTF-8 text ({problem}); save it as UTF-8") from None
    except TimeoutError:
        raise BadTable(f"{what} {file}: nothing came out of it for {PATIENCE:.0f} s") from None
    except OverflowError as error:
        raise BadTable(
            f"{what} {file} holds more than {error} MB, which no list of texts does"
        ) from None
    except OSError as error:
        raise BadTable(f"{what} {file} cannot be read: {error.strerror or error}") from None
    except ValueError:  # a NUL in the name
        raise BadTable(f"{what} {str(file)!r} is no name of a file") from None


def fault(text: str) -> str:
    """Return why a text can be neither read by a model nor written to a file, or ""."""
    if "\0" in text:
        return "it holds a NUL character"
    if len(text) > VALUE_LIMIT:
        return f"it holds {len(text)} characters; {VALUE_LIMIT} are allowed"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "it holds half a character, a lone surrogate"
    return ""


def _chunks(file: Path) -> Iterator[bytes]:
    """Yield the bytes of a file; TimeoutError for a silent pipe, OverflowError (with the limit) for
    too many.
    """
    if str(file) == "-":
        yield from _bounded(iter(lambda: sys.stdin.buffer.read(_CHUNK), b""), STREAM_LIMIT)
        return
    descriptor = os.open(
        file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
    )  # opening a pipe waits for nobody
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            yield from _bounded(iter(lambda: os.read(descriptor, _CHUNK), b""), FILE_LIMIT)
        else:
            yield from _bounded(_stream(descriptor), STREAM_LIMIT)
    finally:
        os.close(descriptor)


def _bounded(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise OverflowError(limit >> 20)
        yield chunk


def _stream(descriptor: int) -> Iterator[bytes]:
    """Yield what a pipe or a device holds until its last writer leaves."""
    begun = False  # a pipe that nobody has opened for writing yet reads as one that has ended
    while True:
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:  # a writer is there, and silent
            chunk = b""
            ended = False
        else:
            ended = not chunk and begun
        if ended:
            return
        if chunk:
            begun = True
            yield chunk
            continue
        if not select.select([descriptor], [], [], PATIENCE)[0]:
            raise TimeoutError
        begun = True


def visible(text: str) -> str:
    """Replace what would steer a terminal by its code, such as \\x1b: names and texts may hold
    anything.
    """
    return text.translate(_UNSEEN)


class _Visible:
    """Write text to a stream, made ``visible``."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = (
            stream  # rich, which draws progress bars, steers the terminal on purpose
        )

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


def open_missing_streams() -> None:
    """Open what of standard input, output and errors was closed before this process began, leading
    nowhere.

    Else the next file that is opened takes its number, and what is printed would land there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(
                os.devnull, os.O_RDWR
            )  # the lowest number that is free: the stream's own
            os.set_inheritable(descriptor, descriptor == number)
            mode = "w" if number else "r"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - stays open


@contextmanager
def shown_safely() -> Iterator[None]:
    """Make all that is printed meanwhile ``visible``, whoever prints it."""
    former = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _Visible(stream)) for stream in former)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = former
