"""Read the tensors of a TorchScript archive, such as OpenAI's CLIPs come in, without running the
code inside it.

Such an archive is a zip of a pickled tree of modules, the code they run, and the storages of their
tensors. Here the tree is unpickled with names for nothing but tensors and plain attribute holders;
the code is never looked at.
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
_DEEPEST = 64  # modules inside modules
_MOST = 100_000  # tensors, counted wherever they are reached from
_SPARE = 64 << 20  # bytes an archive may unpack to beyond four times its own


def read(data: bytes) -> dict[str, torch.Tensor]:
    """Read an archive's parameters, buffers and other tensor attributes by their names in the
    module.

    Raises what the standard library's zipfile and pickle do of damaged ones, and ValueError for one
    that names code.
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
            raise ValueError(f"the TorchScript archive has {len(roots)} trees of modules, not one")
        tree = _Tree(archive, roots[0]).load()
    return dict(_tensors(tree, "", 0))


def _tensors(module: object, prefix: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if depth > _DEEPEST:
        raise ValueError("the TorchScript archive has modules nested without end")
    for count, (name, value) in enumerate(vars(module).items()):
        if isinstance(value, torch.Tensor):
            yield prefix + str(name), value
        elif hasattr(value, "is_module_of_torchscript"):
            yield from _tensors(value, f"{prefix}{name}.", depth + 1)
        if count > _MOST:
            raise ValueError(
                f"the TorchScript archive has more than {_MOST:,} attributes in a module"
            )


class _Tree(pickle.Unpickler):
    """Unpickle the tree; everything it may name is made anew for each archive, so that none can
    change it for later.
    """

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive, self._root = archive, root
        self._storages: dict[str, torch.Tensor] = {}
        self._holder = type("Module", (), {"is_module_of_torchscript": True})

    def find_class(self, module: str, name: str) -> Any:
        """Give what a name in the pickle stands for; anything but tensors and modules is
        refused.
        """
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
            f"the TorchScript archive names {f'{module}.{name}'[:80]!r}, which is no tensor"
        )

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """Read a storage as a flat tensor."""
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise ValueError("the TorchScript archive refers to something that is no storage")
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._root}data/{key}"))
            self._storages[key] = (
                torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            )
        return self._storages[key]


def _fresh(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: call(*given)


def _rebuild(storage: torch.Tensor, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    return storage.as_strided(
        tuple(size), tuple(stride), offset
    )  # raises where the storage is too small


def _parameter(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
    return tensor
