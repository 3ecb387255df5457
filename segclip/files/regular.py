"""Open only regular files: a pipe may block, a device never end, and a link may lead to either.

segclip's own files may come from an untrusted source, so they are read and written through here.
"""

from __future__ import annotations

import errno
import os
import stat
from hashlib import file_digest
from io import BufferedReader
from pathlib import Path

from ..errors import NotWritable

# do not wait for a writer, nor make a terminal the controlling one
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class NotRegular(OSError):
    """An existing path that is not a regular file."""


def open_file(path: Path, *, links: bool = True) -> BufferedReader:
    """Open a regular file for reading bytes, without blocking.

    links: whether to follow a symbolic link at ``path``. Raises NotRegular for a folder, pipe or
    device, and for a link that is not followed; other failures raise OSError.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | _NO_WAIT | (0 if links else _NO_LINK))

    try:
        file = open(path, "rb", opener=opener)  # noqa: SIM115 - the caller closes it
    except IsADirectoryError:
        raise NotRegular(errno.EISDIR, "it is a folder", str(path)) from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise NotRegular(errno.ENXIO, "it is not a regular file", str(path)) from None
        if error.errno == errno.ELOOP and not links:
            raise NotRegular(errno.ELOOP, "it is a link", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotRegular(errno.EINVAL, "it is not a regular file", str(path))
    return file


def read(path: Path, *, most: int | None = None, links: bool = True) -> bytes:
    """Read a regular file. Raises as ``open_file`` does, and OSError beyond ``most`` bytes."""
    with open_file(path, links=links) as file:
        data = file.read(-1 if most is None else most + 1)
    if most is not None and len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return data


def digest(path: Path, *, links: bool = True) -> str:
    """Return the SHA-256 of a regular file. Raises as ``open_file`` does."""
    with open_file(path, links=links) as file:
        return file_digest(file, "sha256").hexdigest()


def what_is(path: Path) -> str:
    """Return the kind of file at a path, such as "a folder"; "" for none. Raises OSError.

    Links are not followed.
    """
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
    """Refuse a link, pipe or device among segclip's records, which would be written through it.

    Raises NotWritable, and OSError.
    """
    if (found := what_is(path)) not in ("", "a file", "a folder"):
        raise NotWritable(
            f"{path} is {found}, where segclip needs a file or a folder of its own; delete it, or "
            "choose another folder"
        )
