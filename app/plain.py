"""Make untrusted strings safe to display: file names, texts, labels and errors that quote them.

Streamlit renders Markdown nearly everywhere, and browsers fetch the images in it.
"""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

LONGEST_NAME = 150  # bytes of UTF-8: file systems take 255, and exports add endings

_SYNTAX = re.compile(r"([\\`*_{}\[\]()#+\-!|<>~$&^=:])")
_ORDERED = re.compile(r"^(\s*\d+)\.")  # a list, at the beginning of a line
_JOINER = "\N{WORD JOINER}"  # zero width; breaks links that are detected after parsing
_FOUND_LATER = re.compile(r"(?<=:)(?=\S)|(?<=www)(?=\.)|(?<=@)(?=\S)", re.IGNORECASE)
_PATH = re.compile(r"(?<![\w.~/\\])(?:~?[/\\]|[A-Za-z]:[/\\])(?:[^\s'\"/\\,;:()]+[/\\])+")


def as_markdown(text: str) -> str:
    """Escape text so that Streamlit's Markdown shows it literally."""
    one_line = " ".join(text.split())
    parted = _FOUND_LATER.sub(_JOINER, one_line)
    return _ORDERED.sub(r"\1\\.", _SYNTAX.sub(r"\\\1", parted))


def file_name(given: str) -> str:
    """Return a file name that is valid on every system; "image" where nothing is left of it."""
    last = given.replace("\\", "/").rpartition("/")[2]
    visible = "".join(letter for letter in last if unicodedata.category(letter)[0] != "C")
    stem, dot, ending = visible.strip(" .").rpartition(".")
    if not dot:
        stem, ending = ending, ""
    ending = dot + ending[:10]
    return _cut(stem, LONGEST_NAME - len(ending.encode())) + ending if stem else "image"


def without_paths(text: str, folders: Iterable[Path] = ()) -> str:
    """Reduce the paths in a message to their last part.

    folders: known folders, whose paths may contain spaces and so have no detectable end.
    """
    known = [*map(Path, folders), Path.home(), Path(tempfile.gettempdir()), Path.cwd()]
    for folder in sorted(known, key=lambda path: len(str(path)), reverse=True):
        if len(folder.parts) > 1:
            text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), folder.name)
    return _PATH.sub("", text)


def _cut(text: str, most: int) -> str:
    """Cut a text to at most ``most`` bytes of UTF-8, between characters."""
    return text.encode()[:most].decode(errors="ignore")
