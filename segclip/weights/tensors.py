"""Read a checkpoint's tensors, however wrapped, without running its code; load them strictly."""

from __future__ import annotations

import io
import math
import pickle
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch.overrides import TorchFunctionMode

from .. import weights
from ..errors import Unsupported, WeightsCorrupt, one_line
from . import torchscript
from .reading import Container, no_weights, open_file, reading, recognise

# keys under which trainers store the weights
WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "module")
# of DDP, torch.compile and Lightning, and of models held as an attribute
PREFIXES = ("module.", "_orig_mod.", "model.", "clip.", "sam.")
_MAX_NESTING = 4  # wrappers in wrappers
_SPARE = 64 << 20  # elements a network may have beyond the bytes of its file
_FACTORIES = frozenset(
    {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.arange}
)

_loading = Lock()  # torch's list of safe globals is shared by the whole process


@dataclass(frozen=True, eq=False)
class Stored:
    """The content of a weight file: tensors by name, and other values of the trainer, ``notes``."""

    path: Path
    tensors: dict[str, torch.Tensor]
    container: Container
    notes: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path, *, trust: bool | None = None) -> Stored:
    """Read the tensors of a file to the CPU; no code in it runs, whatever its format and ``trust``.

    trust: None reads any file; False refuses a pickle unless the SHA-256 of the bytes read is in
    the manifest; True means the user trusts it. Raises WeightsMissing, WeightsCorrupt, Unsupported.
    """
    with reading(path):
        with open_file(path) as file:
            container = recognise(file)
            data = b"" if container == "safetensors" else file.read()
        if container == "safetensors":
            return Stored(path, without_prefixes(safetensors.torch.load_file(path)), container)
        if trust is not None:
            weights.vouch(path, sha256(data).hexdigest(), trust=trust)
        if container == "torchscript":
            return Stored(path, without_prefixes(torchscript.read(data)), container)
        if container == "numpy":
            raise Unsupported(f"{path} is a NumPy archive; convert it to safetensors first")
        if container == "none":
            raise WeightsCorrupt(no_weights(path, data[:64]))
        tensors, notes = _unwrapped(_unpickled(path, data))
        return Stored(path, tensors, container, notes)


def _unpickled(path: Path, data: bytes) -> Any:
    try:
        with unpickling():
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise WeightsCorrupt(
                f"{path} holds {named[1]}, and nothing but tensors and numbers is loaded; "
                "save only the model's state_dict"
            ) from error
        reason = re.search(r"WeightsUnpickler error: (.+)", str(error))
        raise WeightsCorrupt(
            f"{path} cannot be read as weights: {one_line(reason[1] if reason else error)}"
        ) from error


@contextmanager
def unpickling() -> Iterator[None]:
    """Let torch unpickle NumPy scalars, as open_clip's trainer wrote learning rates until 2.29."""
    scalar = np.float64(0).__reduce__()[0]  # builds a number from dtype and bytes, nothing else
    kinds = [type(np.dtype(code)) for code in "?bhilqBHILQefd"]
    named = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    with (
        _loading,
        warnings.catch_warnings(),
        torch.serialization.safe_globals([*named, np.dtype, *dict.fromkeys(kinds)]),
    ):
        warnings.simplefilter("ignore")  # about pickle protocols: unreadable files raise errors
        yield


def _unwrapped(loaded: Any) -> tuple[dict[str, torch.Tensor], Mapping[str, Any]]:
    """Return the tensors of a trainer's checkpoint, and the other values beside them."""
    notes: dict[str, Any] = {}
    for _ in range(_MAX_NESTING):
        if not isinstance(loaded, Mapping):
            break
        inner = next((loaded[name] for name in WRAPPERS if _holds_tensors(loaded.get(name))), None)
        if inner is None:
            break
        notes = {name: value for name, value in loaded.items() if isinstance(name, str)} | notes
        loaded = inner
    if not isinstance(loaded, Mapping):
        raise ValueError(f"the checkpoint is a {type(loaded).__name__}, not a state dict")
    tensors = {name: value for name, value in loaded.items() if _is_tensor(name, value)}
    if not tensors:
        held = ", ".join(repr(str(name)[:40]) for name in list(loaded)[:5])
        raise ValueError(f"the checkpoint has no tensors, but {held or 'nothing'}")
    return without_prefixes(tensors), notes


def _holds_tensors(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return any(_is_tensor(*row) or row[0] in WRAPPERS for row in value.items())


def _is_tensor(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, torch.Tensor)


def without_prefixes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Remove PREFIXES shared by all tensor names, in any order."""
    while prefix := next(
        (p for p in PREFIXES if tensors and all(name.startswith(p) for name in tensors)), None
    ):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def lay_in(
    network: torch.nn.Module,
    tensors: Mapping[str, torch.Tensor],
    what: str,
    *,
    unused: Iterable[str] = (),
) -> None:
    """Load tensors strictly into a network; WeightsCorrupt names those that do not match.

    what: the start of the message, "PATH does not fit MODEL". unused: prefixes of names that either
    side may lack.
    """
    own, optional = network.state_dict(), tuple(unused)
    shapes = [
        name for name, value in tensors.items() if name in own and value.shape != own[name].shape
    ]
    if shapes:
        sizes = f"{tuple(tensors[shapes[0]].shape)}, not {tuple(own[shapes[0]].shape)}"
        raise WeightsCorrupt(
            f"{what}: {_examples(shapes[:1], 'of another shape', len(shapes))}: {sizes}"
        )
    missing, unexpected = network.load_state_dict(dict(tensors), strict=False)
    missing, unexpected = _without(missing, optional), _without(unexpected, optional)
    kinds = ((missing, "missing"), (unexpected, "unexpected"))
    if differing := [_examples(names, kind, len(names)) for names, kind in kinds if names]:
        raise WeightsCorrupt(
            f"{what}, {len(missing) + len(unexpected)} tensors differ: {'; '.join(differing)}"
        )


def _without(names: Iterable[str], prefixes: tuple[str, ...]) -> list[str]:
    return [name for name in names if not prefixes or not name.startswith(prefixes)]


def _examples(names: list[str], kind: str, count: int) -> str:
    return f"{count} {kind}, such as {', '.join(one_line(name)[:80] for name in names[:2])}"


class Sized(TorchFunctionMode):
    """Limit the allocations of a network being built, whose untrusted config may have any size.

    file: the weights; a network with more elements than the file has bytes, plus a margin, cannot
    be the one stored. Raises WeightsCorrupt.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.left = file.stat().st_size + _SPARE
        self.file = file

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count the elements about to be allocated."""
        named = kwargs or {}
        if func in _FACTORIES:
            self.left -= _elements(named.get("size", args))
            if self.left < 0:
                raise WeightsCorrupt(
                    f"the configuration describes far more weights than {self.file} holds"
                )
        return func(*args, **named)


def _elements(size: Any) -> int:
    given = size[0] if len(size) and isinstance(size[0], tuple | list | torch.Size) else size
    return math.prod(int(side) for side in given if isinstance(side, int | float) and side >= 0)
