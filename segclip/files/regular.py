"""Open regular files alone: a pipe may never begin, a device never end, and a link may lead to
either.

Whatever segclip once wrote may have been received from elsewhere, and is read, and written to,
through here.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, cast

from ..errors import NotWritable

_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(
    os, "O_NOCTTY", 0
)  # wait for no writer, be steered by no terminal
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class NotRegular(OSError):
    """Raise for what is there, but is no regular file."""


def open_file(path: Path, *, links: bool = True) -> BinaryIO:
    """Open a regular file to read its bytes, without waiting for anything.

    links: follow one in the place of the file itself. Raises NotRegular for a folder, pipe or
    device, and for a link that is not followed, and OSError.
    """

    def at_once(name: str, flags: int) -> int:
        return os.open(name, flags | _AT_ONCE | (0 if links else _NO_LINK))

    try:
        file = cast(BinaryIO, open(path, "rb", opener=at_once))  # noqa: SIM115 - the caller's to close
    except IsADirectoryError:
        raise NotRegular(errno.EISDIR, "it is a folder", str(path)) from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise NotRegular(errno.ENXIO, "it is no regular file", str(path)) from None
        if error.errno == errno.ELOOP and not links:
            raise NotRegular(errno.ELOOP, "it is a link", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotRegular(errno.EINVAL, "it is no regular file", str(path))
    return file


def read(path: Path, *, most: int | None = None, links: bool = True) -> bytes:
    """Read a regular file. Raises as ``open_file`` does, and OSError for more than ``most``
    bytes.
    """
    with open_file(path, links=links) as file:
        data = file.read(-1 if most is None else most + 1)
    if most is not None and len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return data


def what_is(path: Path) -> str:
    """Say in words what is at a path, links not followed; "" where nothing is. Raises OSError."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    if stat.S_ISLNK(mode):
        return "a link"
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a file" if stat.S_ISREG(mode) else "a pipe or a device"


def refuse_strange(path: Path) -> None:
    """Refuse a link, a pipe or a device where segclip's own records are: it makes none, and would
    write through it.

    Raises NotWritable, and OSError.
    """
    if (found := what_is(path)) not in ("", "a file", "a folder"):
        raise NotWritable(
            f"{path} is {found}, of which segclip makes none there; delete it, or choose another "
            "folder"
        )
