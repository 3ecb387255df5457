"""Detect weight file formats by content, and report any defect as one error naming the file.

File names are not trusted: a file with a safetensors header is safetensors, and any other container
counts as a pickle, which may hold code, unless its content shows otherwise.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, BinaryIO, Literal, TypeVar, get_args, get_type_hints

from ..errors import SegclipError, Unsupported, WeightsCorrupt, WeightsMissing, one_line
from ..files import regular

T = TypeVar("T")
Container = Literal["safetensors", "pickle", "torchscript", "numpy", "none"]

_LENGTH_BYTES = 8  # at the start of a safetensors file: the length of its header
_MAX_HEADER = 100_000_000  # bytes; safetensors' own limit
_MAX_CONFIG = 16 << 20  # bytes
_MAX_DEPTH, _MAX_NUMBER = 32, 1 << 24  # nesting and magnitude of values in a config.json
_MAX_FIELD = 1 << 14  # default bound of numbers in network descriptions and options


@contextmanager
def reading(path: Path, what: str = "weights") -> Iterator[None]:
    """Convert errors of a block that reads ``path``, or builds a network from it, to segclip's own.

    Raises WeightsMissing for a file that cannot be opened, Unsupported for a missing package, and
    WeightsCorrupt, in one line with the file's name, for any other error; segclip's own errors are
    passed on. Every loader uses it.
    """
    try:
        yield
    except SegclipError:
        raise
    except ImportError as error:
        raise Unsupported(f"{path} needs a missing package: {one_line(error)}") from error
    except MemoryError as error:
        raise WeightsCorrupt(f"{path}: not enough memory to read its {what}") from error
    except OSError as error:
        if error.filename is None or Path(error.filename) != path:
            raise WeightsCorrupt(f"{path} cannot be read as {what}: {one_line(error)}") from error
        raise WeightsMissing(
            f"{path} cannot be read: {error.strerror or one_line(error)}"
        ) from error
    except Exception as error:  # damaged bytes can raise anything in a library
        raise WeightsCorrupt(f"{path} cannot be read as {what}: {one_line(error)}") from error


def open_file(path: Path) -> BinaryIO:
    """Open a regular file; Unsupported for pipes and devices, which may not end. Raises OSError."""
    try:
        return regular.open_file(path)
    except regular.NotRegular:
        raise Unsupported(f"{path} is not a file of weights") from None


def container_of(path: Path) -> Container:
    """Detect a file's container format by its content.

    Raises WeightsMissing if it cannot be opened, and Unsupported if it is not a regular file.
    """
    with reading(path), open_file(path) as file:
        return recognise(file)


def recognise(file: BinaryIO) -> Container:
    """Detect an open file's container format, and rewind it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_LENGTH_BYTES + 1)
    try:
        if _is_safetensors(head, size):
            return "safetensors"
        if head.startswith(b"PK\x03\x04"):
            return _container_of_zip(file)
        is_pickle = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
        return "pickle" if is_pickle else "none"
    finally:
        file.seek(0)


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    return head[_LENGTH_BYTES:] == b"{" and length <= min(size - _LENGTH_BYTES, _MAX_HEADER)


def _container_of_zip(file: BinaryIO) -> Container:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError):
        return "pickle"  # truncated; reading it will raise the error
    if any(name == "constants.pkl" or name.endswith("/constants.pkl") for name in names):
        return "torchscript"
    return "numpy" if names and all(name.endswith(".npy") for name in names) else "pickle"


def check_whole(path: Path) -> None:
    """Raise WeightsCorrupt unless a file is a complete container of weights."""
    with reading(path), open_file(path) as file:
        container, size = recognise(file), os.fstat(file.fileno()).st_size
        if container == "none":
            raise WeightsCorrupt(no_weights(path, file.read(64)))
        if container == "safetensors":
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            header = json.loads(file.read(length))
            ends = [
                row["data_offsets"][1] for name, row in header.items() if name != "__metadata__"
            ]
            expected = _LENGTH_BYTES + length + max(ends, default=0)
            if not ends or expected != size:
                raise WeightsCorrupt(
                    f"{path} has {size:,} bytes, but its header requires {expected:,}; it is "
                    "incomplete or damaged"
                )
        elif file.read(2) == b"PK":
            file.seek(0)
            zipfile.ZipFile(file).close()  # reads the member list, at the end of the file


def no_weights(path: Path, head: bytes) -> str:
    """Return the message for a file that is no container of weights; quotes ``head`` if text."""
    if not head:
        return f"{path} holds no weights: it is empty"
    start = head.decode("ascii", "replace").split("\n")[0].strip()[:40]
    is_text = start.isascii() and start.isprintable() and start
    text = f"; it begins with {start!r}" if is_text else ""
    return f"{path} holds no weights: it is neither safetensors nor a torch checkpoint{text}"


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.json as a dictionary of plain values, of bounded magnitude and nesting.

    Raises WeightsMissing, WeightsCorrupt.
    """
    with reading(path, "a configuration"):
        with open_file(path) as file:
            text = file.read(_MAX_CONFIG + 1)
        if len(text) > _MAX_CONFIG:
            raise WeightsCorrupt(
                f"{path} has more than {_MAX_CONFIG:,} bytes, too many for a configuration"
            )
        config = json.loads(text)
        if not isinstance(config, dict):
            raise WeightsCorrupt(
                f"{path} holds a {type(config).__name__}; a configuration is a JSON object"
            )
        _check_plain(config, path, 0)
        return config


def described(
    kind: type[T],
    values: Any,
    most: Mapping[str, int] = MappingProxyType({}),
    *,
    signed: Sequence[str] = (),
) -> T:
    """Build a frozen dataclass from validated JSON values, lists as tuples.

    Every field is a number, a text, a tuple of numbers, or an object built already. Numbers must be
    small enough for a network or its options, and not negative, except for the fields in
    ``signed``. most: upper bounds of fields that cost time or memory. Raises TypeError, ValueError.
    """
    if not isinstance(values, dict):
        raise TypeError(f"{kind.__name__} must be an object, got {str(values)[:60]!r}")
    hints, given = get_type_hints(kind), {}
    for name, value in values.items():
        allowed = (
            get_args(hints[name]) if isinstance(hints.get(name), UnionType) else (hints.get(name),)
        )
        listed = isinstance(value, list)
        parts = value if listed else [value]
        largest = most.get(name, _MAX_FIELD)
        bounds = (-largest if name in signed else 0, largest)
        if not any(_is_valid(parts, listed, hint, bounds) for hint in allowed):
            raise ValueError(f"{name} of {kind.__name__} is {str(value)[:60]!r}")
        given[name] = tuple(value) if listed else value
    return kind(**given)


def _is_valid(parts: Sequence[Any], listed: bool, hint: Any, bounds: tuple[int, int]) -> bool:
    """Return whether a value, or the elements of a list, match a field's type hint and bounds."""
    inner = get_args(hint)[0] if listed and get_args(hint) else hint
    if listed != bool(get_args(hint)):
        return False
    if inner in (int, float):
        number = int if inner is int else int | float
        return all(
            isinstance(p, number) and not isinstance(p, bool) and bounds[0] <= p <= bounds[1]
            for p in parts
        )
    return isinstance(inner, type) and all(isinstance(part, inner) for part in parts)


def _check_plain(value: object, path: Path, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise WeightsCorrupt(f"{path} is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_plain(inner, path, depth + 1)
    elif isinstance(value, int | float) and not (
        math.isfinite(value) and abs(value) <= _MAX_NUMBER
    ):
        raise WeightsCorrupt(f"{path} holds the number {str(value)[:40]}, not finite or too large")
