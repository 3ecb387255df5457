"""Read pickles of plain data: lists, dictionaries, texts and numbers. Nothing in them runs.

A pickle is a program. Its instructions are listed before any is carried out, and one that names,
calls or restores an object refuses the file; the unpickler then refuses every name once more.
Tuples are refused too: a deeply nested one, as a key, overflows the stack of the process.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from ..errors import BadTable
from . import regular

LIMIT = 1 << 30  # bytes of a file
# Python 2 wrote texts as bytes of an encoding that the file does not name
_ENCODINGS = ("utf-8", "latin1")
_DAMAGED = (
    pickle.UnpicklingError,
    *(AttributeError, EOFError, IndexError, KeyError, MemoryError, OverflowError, TypeError),
    ValueError,
)

# Plain data's instructions, by the size of their argument in bytes.
_FIXED: dict[int, tuple[bytes, ...]] = {
    0: (
        *(pickle.MARK, pickle.STOP, pickle.POP, pickle.POP_MARK, pickle.DUP, pickle.MEMOIZE),
        *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
        *(pickle.EMPTY_LIST, pickle.LIST, pickle.APPEND, pickle.APPENDS),
        *(pickle.EMPTY_DICT, pickle.DICT, pickle.SETITEM, pickle.SETITEMS),
    ),
    1: (pickle.PROTO, pickle.BININT1, pickle.BINGET, pickle.BINPUT),
    2: (pickle.BININT2,),
    4: (pickle.BININT, pickle.LONG_BINGET, pickle.LONG_BINPUT),
    8: (pickle.BINFLOAT, pickle.FRAME),
}
# The argument ends with its line.
_LINES = (
    *(pickle.INT, pickle.LONG, pickle.FLOAT, pickle.STRING, pickle.UNICODE),
    *(pickle.GET, pickle.PUT),
)
# The argument begins with its own length, in this many bytes.
_COUNTED: dict[int, tuple[bytes, ...]] = {
    1: (pickle.SHORT_BINSTRING, pickle.SHORT_BINUNICODE, pickle.LONG1),
    4: (pickle.BINSTRING, pickle.BINUNICODE, pickle.LONG4),
    8: (pickle.BINUNICODE8,),
}
_SIZE = {code[0]: size for size, codes in _FIXED.items() for code in codes}
_LENGTH = {code[0]: size for size, codes in _COUNTED.items() for code in codes}
_LINE = {code[0] for code in _LINES}
_STOP, _PUTS = pickle.STOP[0], (pickle.PUT[0], pickle.LONG_BINPUT[0])


class _PlainUnpickler(pickle.Unpickler):
    """Load no class and call no function."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse."""
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read(file: Path, what: str) -> Any:
    """Return the plain data of a pickle, of any protocol, called ``what`` in messages.

    Texts of Python 2 are decoded as UTF-8, else as Latin-1. Raises BadTable, also for a file that
    holds anything but plain data.
    """
    try:
        data = regular.read(file, most=LIMIT)
    except OSError as error:
        raise BadTable(f"{what} {file} cannot be read: {error.strerror or error}") from None
    except ValueError:  # a NUL in the name
        raise BadTable(f"{what} {str(file)!r} is not a valid file name") from None
    try:
        _check(data)
        return _load(data)
    except _DAMAGED as error:
        reason = str(error).partition("\n")[0][:120] or type(error).__name__
        raise BadTable(
            f"{what} {file} is not a pickle of plain data: {reason}; only lists, dictionaries, "
            "texts and numbers are read, and nothing in the file is run"
        ) from None


def _load(data: bytes) -> Any:
    for encoding in _ENCODINGS[:-1]:
        try:
            return _PlainUnpickler(io.BytesIO(data), encoding=encoding).load()
        except UnicodeDecodeError:
            continue
    return _PlainUnpickler(io.BytesIO(data), encoding=_ENCODINGS[-1]).load()


def _check(data: bytes) -> None:
    """Raise ValueError unless all instructions are those of plain data.

    A number of a memo beyond the file's length would make the unpickler allocate gigabytes.
    """
    for at, code, argument in _instructions(data):
        if code not in _PUTS:
            continue
        number = int.from_bytes(argument, "little") if code == _PUTS[1] else int(argument)
        if not 0 <= number <= len(data):
            raise ValueError(f"byte {at} stores as number {number}")


def _instructions(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the position, code and argument of each instruction. Raises ValueError."""
    at = 0
    while at < len(data):
        code, begin = data[at], at + 1
        if code in _SIZE:
            end = begin + _SIZE[code]
        elif code in _LENGTH:
            begin += _LENGTH[code]
            end = begin + int.from_bytes(data[at + 1 : begin], "little")
        elif code in _LINE:
            end = data.find(b"\n", begin) + 1 or len(data) + 1
        else:
            raise ValueError(f"byte {at} holds the instruction {bytes([code])!r}")
        if end > len(data):
            raise ValueError(f"it ends inside the instruction of byte {at}")
        yield at, code, data[begin:end]
        if code == _STOP:
            return
        at = end
    raise ValueError("it has no end")
