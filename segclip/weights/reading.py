"""Recognise weight files by their content, and turn whatever one of them does wrong into one error
that names it.

A file's name proves nothing: safetensors is what begins as safetensors does, and every other
container counts as a pickle, which may hold code, until its content shows otherwise.
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

_HEADER = 8  # bytes of a safetensors file that hold the length of its header
_LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
_LONGEST_CONFIG = 16 << 20  # bytes
_DEEPEST, _LARGEST = 32, 1 << 24  # nesting and magnitude of what a config.json of any network holds
_WIDEST = 1 << 14  # of a field of a network's description or options


@contextmanager
def reading(path: Path, what: str = "weights") -> Iterator[None]:
    """Answer for a block that reads ``path``, or builds a network from it: one boundary for every
    loader.

    Raises WeightsMissing for a file that cannot be opened, Unsupported where a package is missing,
    and WeightsCorrupt, in one line with the file's name, for everything else that goes wrong in the
    block; segclip's own errors pass.
    """
    try:
        yield
    except SegclipError:
        raise
    except ImportError as error:
        raise Unsupported(f"{path} needs a package that is not here: {one_line(error)}") from error
    except MemoryError as error:
        raise WeightsCorrupt(
            f"{path} asks for more memory than there is to read its {what}"
        ) from error
    except OSError as error:
        if error.filename is None or Path(error.filename) != path:
            raise WeightsCorrupt(f"{path} cannot be read as {what}: {one_line(error)}") from error
        raise WeightsMissing(
            f"{path} cannot be read: {error.strerror or one_line(error)}"
        ) from error
    except Exception as error:  # whatever the bytes made a library do
        raise WeightsCorrupt(f"{path} cannot be read as {what}: {one_line(error)}") from error


def open_file(path: Path) -> BinaryIO:
    """Open a regular file; a pipe or a device, which might never end, raises Unsupported. Raises
    OSError.
    """
    try:
        return regular.open_file(path)
    except regular.NotRegular:
        raise Unsupported(f"{path} is not a file that holds weights") from None


def container_of(path: Path) -> Container:
    """Recognise what a file is by its content. Raises WeightsMissing when it cannot be opened,
    Unsupported.
    """
    with reading(path), open_file(path) as file:
        return recognise(file)


def recognise(file: BinaryIO) -> Container:
    """Recognise an open file's content, and go back to its beginning."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_HEADER + 1)
    try:
        if _begins_safetensors(head, size):
            return "safetensors"
        if head.startswith(b"PK\x03\x04"):
            return _of_zip(file)
        return (
            "pickle"
            if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
            else "none"
        )
    finally:
        file.seek(0)


def _begins_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:_HEADER], "little")
    return head[_HEADER:] == b"{" and length <= min(size - _HEADER, _LONGEST_HEADER)


def _of_zip(file: BinaryIO) -> Container:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError):
        return "pickle"  # one cut short; who reads it will say so
    if any(name == "constants.pkl" or name.endswith("/constants.pkl") for name in names):
        return "torchscript"
    return "numpy" if names and all(name.endswith(".npy") for name in names) else "pickle"


def check_whole(path: Path) -> None:
    """Raise WeightsCorrupt unless a file is a container of weights that has all its bytes."""
    with reading(path), open_file(path) as file:
        container, size = recognise(file), os.fstat(file.fileno()).st_size
        if container == "none":
            raise WeightsCorrupt(no_weights(path, file.read(64)))
        if container == "safetensors":
            length = int.from_bytes(file.read(_HEADER), "little")
            tensors = {
                name: row
                for name, row in json.loads(file.read(length)).items()
                if name != "__metadata__"
            }
            end = (
                _HEADER
                + length
                + max((row["data_offsets"][1] for row in tensors.values()), default=0)
            )
            if not tensors or end != size:
                raise WeightsCorrupt(
                    f"{path} has {size:,} bytes, and its header says {end:,}; it is not whole"
                )
        elif file.read(2) == b"PK":
            file.seek(0)
            zipfile.ZipFile(file).close()  # its list of members is at its end


def no_weights(path: Path, head: bytes) -> str:
    """Word the message for a file that is no container of weights, with what it begins with where
    that is text.
    """
    if not head:
        return f"{path} holds no weights: it is empty"
    begins = head.decode("ascii", "replace").split("\n")[0].strip()[:40]
    text = (
        f"; it begins with {begins!r}"
        if begins.isascii() and begins.isprintable() and begins
        else ""
    )
    return f"{path} holds no weights: it is neither safetensors nor a checkpoint of torch{text}"


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.json as a dictionary of plain values: finite numbers no network exceeds,
    nothing nested deeply.

    Raises WeightsMissing, WeightsCorrupt.
    """
    with reading(path, "a configuration"):
        with open_file(path) as file:
            text = file.read(_LONGEST_CONFIG + 1)
        if len(text) > _LONGEST_CONFIG:
            raise WeightsCorrupt(
                f"{path} has more than {_LONGEST_CONFIG:,} bytes; no configuration has"
            )
        config = json.loads(text)
        if not isinstance(config, dict):
            raise WeightsCorrupt(
                f"{path} holds a {type(config).__name__} where a configuration, an object, should "
                "be"
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
    """Make a frozen dataclass of what JSON holds, whose lists were tuples; raise TypeError or
    ValueError for another.

    Every field is a number, a text, a tuple of numbers, or made already; no number of a network or
    of its options is huge, or negative but for the fields named ``signed``. most: the largest value
    of fields that cost time or memory.
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
        largest = most.get(name, _WIDEST)
        bounds = (-largest if name in signed else 0, largest)
        if not any(_suits(parts, listed, wanted, bounds) for wanted in allowed):
            raise ValueError(f"{name} of {kind.__name__} is {str(value)[:60]!r}")
        given[name] = tuple(value) if listed else value
    return kind(**given)


def _suits(parts: Sequence[Any], listed: bool, wanted: Any, bounds: tuple[int, int]) -> bool:
    """Tell whether a value, or the parts of a list, are what a field of this type may hold."""
    inner = get_args(wanted)[0] if listed and get_args(wanted) else wanted
    if listed != bool(get_args(wanted)):
        return False
    if inner in (int, float):
        number = int if inner is int else int | float
        return all(
            isinstance(p, number) and not isinstance(p, bool) and bounds[0] <= p <= bounds[1]
            for p in parts
        )
    return isinstance(inner, type) and all(isinstance(part, inner) for part in parts)


def _check_plain(value: object, path: Path, depth: int) -> None:
    if depth > _DEEPEST:
        raise WeightsCorrupt(f"{path} is nested more than {_DEEPEST} deep; no configuration is")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_plain(inner, path, depth + 1)
    elif isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= _LARGEST):
        raise WeightsCorrupt(
            f"{path} holds the number {str(value)[:40]}; no configuration needs one like it"
        )
