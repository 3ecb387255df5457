"""Read images and texts as they were typed: standard input, and slips that are easy to spot."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import BadPrompt
from ..registry import looks_like_address

if TYPE_CHECKING:
    from ..types import Image

STDIN = Path("-")
_MOST = 1 << 30  # bytes read from standard input
_WILD = re.compile(r"[*?]|\[[^]]+\]")
# words that do not name a thing by themselves: a text of one of them and the next text belong
# together, as in: segclip segment desk.png red apple
_MODIFIERS = (
    *("a", "an", "the", "my", "this", "that", "these", "those", "some", "two", "three", "of"),
    *("with", "in", "on", "at", "under", "left", "right", "top", "bottom", "upper", "lower"),
    *("middle", "first", "second", "third", "biggest", "largest", "smallest", "big", "small"),
    *("large", "tiny", "long", "tall", "short", "old", "young", "open", "closed", "empty", "full"),
    *("red", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey"),
    *("gray", "dark", "light", "bright", "golden", "silver", "wooden", "metal", "plastic"),
    *("leather", "striped"),
)


def local_path(value: str) -> Path:
    """Convert a path of the command line. Raises BadPrompt for a web address."""
    if looks_like_address(value):
        raise BadPrompt(f"{value} is a web address, and segclip reads files; download it first")
    return Path(value)


def check_image(verb: str, image: Path, texts: Sequence[str]) -> None:
    """Raise BadPrompt where the image or a text of a command is evidently something else.

    verb: the command, which takes one image and then texts.
    """
    files = [text for text in texts if _is_file(text)]
    wild = bool(_WILD.search(str(image))) and not image.exists()
    if files and not (wild or image == STDIN or image.exists()) and Path(files[0]).is_file():
        rest = [str(image), *(text for text in texts if text != files[0])]
        raise BadPrompt(
            f"{str(image)!r} is no file and {files[0]!r} is one; the image comes first: "
            f"segclip {verb} {shlex.join([files[0], *rest])}"
        )
    if files:
        raise BadPrompt(
            f"{files[0]!r} is a file, not a text; {verb} takes one image. For several: segclip "
            "export FOLDER OUT --text TEXT, with a folder or a glob in quotes"
        )
    if wild or image.is_dir():
        kind = "a pattern" if wild else "a folder"
        options = [word for text in texts or ("TEXT",) for word in ("--text", text)]
        raise BadPrompt(
            f"{str(image)!r} is {kind}, and {verb} takes one image. For several: segclip export "
            f"{shlex.quote(str(image))} OUT {shlex.join(options)}"
        )


def _is_file(text: str) -> bool:
    """Return whether a text is evidently a file: an image's name, or an existing path."""
    from ..files.listing import IMAGE_SUFFIXES

    path = Path(text)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    if "\0" in text or not (path.suffix or len(path.parts) > 1):
        return False
    try:
        return path.exists()
    except OSError:  # longer than a path may be
        return False


def note_missing_quotes(texts: Sequence[str]) -> None:
    """Print a note where single words were probably meant as one text: red apple."""
    if any(" " in text for text in texts):
        return
    for word, after in pairwise(texts):
        if word.lower() in _MODIFIERS and after.lower() not in _MODIFIERS:
            typer.echo(
                f"note: {word!r} and {after!r} are searched as texts of their own; for one text "
                f"use quotes: {' '.join(texts)!r}",
                err=True,
            )
            return


def name_of(image: Path) -> Path:
    """Return the path after which an image's files are named."""
    return Path("stdin") if image == STDIN else image


def read_image(image: Path, *, max_pixels: int) -> Image:
    """Read an image, that of standard input for "-". Raises BadImage, BadPrompt."""
    from .. import images

    if image != STDIN:
        return images.load(image, max_pixels=max_pixels)
    data = sys.stdin.buffer.read(_MOST + 1)
    if len(data) > _MOST:
        raise BadPrompt(f"standard input holds more than {_MOST:,} bytes; save the image as a file")
    return images.load(data, label="stdin", max_pixels=max_pixels)
