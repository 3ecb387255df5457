"""Read the tensors of any checkpoint, whatever it is wrapped in, without running anything it holds;
and lay them into a network, so that what does not fit is named.
"""

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

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "network",
    "net",
    "module",
)  # what trainers keep weights under
PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "clip.",
    "sam.",
)  # DDP's, torch.compile's, Lightning's, of a field
_DEEPEST = 4  # wrappers in wrappers
_SPARE = 64 << 20  # elements a network may have beyond the bytes of its file
_FACTORIES = frozenset(
    {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.arange}
)

_loading = Lock()  # torch's list of what may be unpickled is one for the whole process


@dataclass(frozen=True, eq=False)
class Stored:
    """Hold what a file held: its tensors by name, and what else a trainer wrote beside them,
    ``notes``.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    container: Container
    notes: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path, *, trust: bool | None = None) -> Stored:
    """Read the tensors of a file onto the CPU; nothing in it is run, whatever its container and
    ``trust``.

    trust: None reads any file; False only a pickle whose SHA-256, of the bytes that are read, is in
    the manifest, and True any the user vouches for. Raises WeightsMissing, WeightsCorrupt,
    Unsupported.
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
                "save the state_dict of its model alone"
            ) from error
        reason = re.search(r"WeightsUnpickler error: (.+)", str(error))
        raise WeightsCorrupt(
            f"{path} cannot be read as weights: {one_line(reason[1] if reason else error)}"
        ) from error


@contextmanager
def unpickling() -> Iterator[None]:
    """Let torch read NumPy's numbers beside tensors, as open_clip's trainer wrote learning rates
    until 2.29.
    """
    scalar = np.float64(0).__reduce__()[0]  # of a number's dtype and bytes; it makes nothing else
    kinds = [type(np.dtype(code)) for code in "?bhilqBHILQefd"]
    named = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    with (
        _loading,
        warnings.catch_warnings(),
        torch.serialization.safe_globals([*named, np.dtype, *dict.fromkeys(kinds)]),
    ):
        warnings.simplefilter(
            "ignore"
        )  # of pickle protocols: what cannot be read is told by an error
        yield


def _unwrapped(loaded: Any) -> tuple[dict[str, torch.Tensor], Mapping[str, Any]]:
    """Find the tensors of a checkpoint as trainers write them, and what lies beside them."""
    notes: dict[str, Any] = {}
    for _ in range(_DEEPEST):
        if not isinstance(loaded, Mapping):
            break
        inner = next((loaded[name] for name in WRAPPERS if _holds_tensors(loaded.get(name))), None)
        if inner is None:
            break
        notes = {name: value for name, value in loaded.items() if isinstance(name, str)} | notes
        loaded = inner
    if not isinstance(loaded, Mapping):
        raise ValueError(
            f"the checkpoint is a {type(loaded).__name__} where a state dict should be"
        )
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
    """Take off what wrappers put before the name of every tensor, in whatever order they did."""
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
    """Load tensors into a network that has exactly these; raise WeightsCorrupt naming those that
    differ.

    what: how the message begins, "PATH does not fit MODEL". unused: beginnings of names either side
    may lack.
    """
    own, spared = network.state_dict(), tuple(unused)
    shapes = [
        name for name, value in tensors.items() if name in own and value.shape != own[name].shape
    ]
    if shapes:
        sizes = f"{tuple(tensors[shapes[0]].shape)}, not {tuple(own[shapes[0]].shape)}"
        raise WeightsCorrupt(
            f"{what}: {_named(shapes[:1], 'of another shape', len(shapes))}: {sizes}"
        )
    missing, strange = network.load_state_dict(dict(tensors), strict=False)
    missing, strange = _without(missing, spared), _without(strange, spared)
    kinds = ((missing, "missing"), (strange, "unexpected"))
    if differing := [_named(names, how, len(names)) for names, how in kinds if names]:
        raise WeightsCorrupt(
            f"{what}, {len(missing) + len(strange)} tensors differ: {'; '.join(differing)}"
        )


def _without(names: Iterable[str], beginnings: tuple[str, ...]) -> list[str]:
    return [name for name in names if not beginnings or not name.startswith(beginnings)]


def _named(names: list[str], how: str, count: int) -> str:
    return f"{count} {how}, such as {', '.join(_shown(name) for name in names[:2])}"


def _shown(name: str) -> str:
    return one_line(name)[:80]


class Sized(TorchFunctionMode):
    """Refuse, while a network is built, tensors that its own file could not fill: a description may
    ask for anything.

    file: the weights; a network of more elements than it has bytes is not the one stored there.
    Raises WeightsCorrupt.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.left = file.stat().st_size + _SPARE
        self.file = file

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what is about to be allocated."""
        named = kwargs or {}
        if func in _FACTORIES:
            self.left -= _elements(named.get("size", args))
            if self.left < 0:
                raise WeightsCorrupt(
                    f"a network of far more weights is described than {self.file} holds"
                )
        return func(*args, **named)


def _elements(size: Any) -> int:
    given = size[0] if len(size) and isinstance(size[0], tuple | list | torch.Size) else size
    return math.prod(int(side) for side in given if isinstance(side, int | float) and side >= 0)
