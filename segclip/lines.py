"""Read texts that people keep in files, one a line; the file "-" is standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from .errors import BadPrompt


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
