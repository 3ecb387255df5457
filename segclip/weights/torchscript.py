"""Read the tensors of a TorchScript archive, such as OpenAI's CLIP, without running its code.

The archive is a zip of a pickled module tree, the modules' code, and the storages of their tensors.
The tree is unpickled with only tensors and plain attribute holders allowed; the code is never read.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS = frozenset({"build_intlist", "build_doublelist", "build_boollist", "build_tensorlist"})
_MAX_DEPTH = 64  # modules inside modules
_MAX_ATTRIBUTES = 100_000  # per module
_SPARE = 64 << 20  # bytes an archive may unpack to beyond four times its size


def read(data: bytes) -> dict[str, torch.Tensor]:
    """Return an archive's parameters, buffers and other tensor attributes, by name in the module.

    Raises the errors of zipfile and pickle for a damaged archive, and ValueError for one that
    refers to code.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > 4 * len(data) + _SPARE:
            raise ValueError("the archive unpacks to many times its size")
        roots = [
            name.removesuffix("data.pkl")
            for name in archive.namelist()
            if name.endswith("data.pkl")
        ]
        if len(roots) != 1:
            raise ValueError(f"the TorchScript archive has {len(roots)} module trees, not one")
        tree = _TreeUnpickler(archive, roots[0]).load()
    return dict(_tensors(tree, "", 0))


def _tensors(module: object, prefix: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if depth > _MAX_DEPTH:
        raise ValueError(f"the TorchScript archive has modules nested more than {_MAX_DEPTH} deep")
    for count, (name, value) in enumerate(vars(module).items()):
        if isinstance(value, torch.Tensor):
            yield prefix + str(name), value
        elif hasattr(value, "is_module_of_torchscript"):
            yield from _tensors(value, f"{prefix}{name}.", depth + 1)
        if count > _MAX_ATTRIBUTES:
            raise ValueError(
                f"the TorchScript archive has more than {_MAX_ATTRIBUTES:,} attributes in a module"
            )


class _TreeUnpickler(pickle.Unpickler):
    """A restricted unpickler; allowed callables are recreated, so no archive can alter them."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive, self._root = archive, root
        self._storages: dict[str, torch.Tensor] = {}
        self._holder = type("Module", (), {"is_module_of_torchscript": True})

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a global; raise ValueError for all but tensors and modules."""
        if module == "__torch__" or module.startswith("__torch__."):
            return self._holder
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _fresh(_rebuild)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _fresh(_parameter)
        if module == "torch.jit._pickle" and name in _LISTS:
            return _fresh(list)
        if (module, name) == ("collections", "OrderedDict"):
            return _fresh(OrderedDict)
        raise ValueError(
            f"the TorchScript archive names {f'{module}.{name}'[:80]!r}, which is not a tensor"
        )

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """Return a storage as a flat tensor."""
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise ValueError("the TorchScript archive refers to an object that is not a storage")
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._root}data/{key}"))
            self._storages[key] = (
                torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            )
        return self._storages[key]


def _fresh(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: call(*args)  # noqa: PLW0108 - a pickle may set attributes on it


def _rebuild(storage: torch.Tensor, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    # raises if the storage is too small
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _parameter(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
    return tensor
