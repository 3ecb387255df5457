"""Read users' text from a file, a pipe or standard input ("-"), and escape terminal output."""

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
STREAM_LIMIT = 64 << 20  # bytes of a pipe, a device or standard input, whose size is unknown
PATIENCE = 30.0  # s to wait for a pipe's writer to send something
# characters of one text, caption or label; also the field limit of Python's csv module
VALUE_LIMIT = 131_072

_CHUNK = 1 << 20  # bytes
_BINARY = bytes(64)  # this many NULs in a row mark a binary file; single ones are reported by line
# unlike str.splitlines, does not split at U+2028 and the like, which occur in texts
_LINE_END = re.compile(r"\r\n|\r|\n")
# Escapes of characters that control a terminal: control characters except line feed and tab, and
# bidirectional overrides.
_ESCAPES = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
}
_ESCAPES |= {
    code: f"\\u{code:04x}"
    for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def read(file: Path, what: str) -> list[str]:
    """Return the non-blank lines, stripped.

    what: names the file in messages. Raises BadTable, with the line number.
    """
    found = []
    for number, text in numbered(read_text(file, what)):
        if problem := fault(text):
            raise BadTable(f"{what} {file}, line {number}: {problem}")
        found.append(text)
    return found


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and stripped text of each non-blank line."""
    for number, line in enumerate(_LINE_END.split(text), 1):
        if kept := line.strip():
            yield number, kept


def read_text(file: Path, what: str) -> str:
    """Return the UTF-8 text of a file, without a byte-order mark. Raises BadTable."""
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
        raise BadTable(f"{what} {file}: no data arrived for {PATIENCE:.0f} s") from None
    except OverflowError as error:
        raise BadTable(
            f"{what} {file} holds more than {error} MB, too much for a list of texts"
        ) from None
    except OSError as error:
        raise BadTable(f"{what} {file} cannot be read: {error.strerror or error}") from None
    except ValueError:  # a NUL in the name
        raise BadTable(f"{what} {str(file)!r} is not a valid file name") from None


def fault(text: str) -> str:
    """Return why a text cannot be tokenised or written to a file, "" if it can."""
    if "\0" in text:
        return "it holds a NUL character"
    if len(text) > VALUE_LIMIT:
        return f"it holds {len(text)} characters; {VALUE_LIMIT} are allowed"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "it holds a lone surrogate (half a character)"
    return ""


def _chunks(file: Path) -> Iterator[bytes]:
    """Yield the bytes of a file or stream.

    Raises TimeoutError for a silent pipe, and OverflowError, with the limit in MiB, beyond it.
    """
    if str(file) == "-":
        yield from _bounded(iter(lambda: sys.stdin.buffer.read(_CHUNK), b""), STREAM_LIMIT)
        return
    # non-blocking, as opening a pipe waits for a writer
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
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
    """Yield the data of a pipe or a device until its last writer closes it."""
    begun = False  # a pipe not yet opened for writing also reads as ended
    while True:
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:  # a writer is connected but silent
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
    r"""Escape terminal control characters, such as \x1b, that file names and texts may hold."""
    return text.translate(_ESCAPES)


class _EscapingStream:
    """A text stream that passes everything through ``visible``."""

    def __init__(self, stream: TextIO) -> None:
        # the name by which rich finds the real stream, to draw progress bars
        self.rich_proxied_file = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        """Write a text; a leading carriage return, of a progress bar, is kept."""
        start = "\r" if text.startswith("\r") else ""
        return self.rich_proxied_file.write(start + visible(text[len(start) :]))

    def writelines(self, texts: list[str]) -> None:
        """Write several texts."""
        for text in texts:
            self.write(text)


def open_missing_streams() -> None:
    """Connect standard streams that were closed at startup to the null device.

    Otherwise the next opened file would take the descriptor, and printed text would land in it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # gets the lowest free descriptor, which is the stream's own
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, descriptor == number)
            mode = "w" if number else "r"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - stays open


@contextmanager
def escaping_output() -> Iterator[None]:
    """Escape everything printed inside the block with ``visible``, other libraries' output too."""
    original = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _EscapingStream(stream)) for stream in original)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = original
