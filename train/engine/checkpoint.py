"""Store what a training run resumes from: network, running average, optimizer, step and time."""

from __future__ import annotations

import os
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import torch

from segclip.encoders.patches import with_current_names
from segclip.errors import BadIndex, NotWritable
from segclip.files import atomic

from . import processes, sharding
from .files import sweep
from .state import TrainingState

_DAMAGE = (  # raised by torch, pickle and zipfile for damaged files
    OSError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,
    RecursionError,
    MemoryError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)
_MARK = b"sha256 "
_ZEROS = b"0" * 64


class TrainingCheckpoint(TrainingState):
    """A state that a run resumes from: last.pt in a folder. extra: state of the recipe itself."""

    def __init__(
        self, folder: Path, network: Any, optimizer: torch.optim.Optimizer, ema: float
    ) -> None:
        super().__init__(network, optimizer, ema)
        self.folder = folder
        self.extra: dict[str, Any] = {}

    def keep(self) -> None:
        """Write last.pt atomically and flush it to disk. Raises NotWritable.

        Only the first of several processes writes; all must call this where the network is sharded.
        """
        state = {"network": self.network.state_dict(), "average": self.average}
        state |= {"optimizer": self.optimizer.state_dict(), "step": self.step, "spent": self.spent}
        state = sharding.whole(state)
        if processes.rank() > 0:
            return
        path = self.folder / "last.pt"
        try:
            with atomic.replacing(path) as file:
                _save(state | {"extra": self.extra}, file)
        except RuntimeError as error:  # raised by torch's writer on a full disk
            raise NotWritable(f"{path}: cannot be written; is the disk full? ({error})") from None

    def resume(self) -> bool:
        """Resume from last.pt and return whether it exists.

        Raises BadIndex for a damaged checkpoint or one of another model.
        """
        path = self.folder / "last.pt"
        if processes.rank() == 0:
            sweep(self.folder)
        if not path.exists():
            return False
        state = _read(path, next(self.network.parameters()).device)
        likes = self.network.state_dict()
        for name in ("network", "average"):
            state[name] = with_current_names(state[name])
            if odd := _differences(state[name], likes):
                raise BadIndex(
                    f"{path} is of another model, which differs in {', '.join(odd[:3])}; choose "
                    "another folder"
                )
        try:
            self._take(state, likes)
        except _DAMAGE as error:
            raise BadIndex(
                f"{path} does not fit this recipe ({error!r}); choose another folder"
            ) from None
        return True

    def _take(self, state: dict[str, Any], likes: Mapping[str, Any]) -> None:
        for name in ("network", "average"):
            state[name] = {
                key: sharding.part(value, likes[key]) for key, value in state[name].items()
            }
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for row, saved in state["optimizer"]["state"].items():
            _check_moments(saved, parameters[row])
            saved |= {key: sharding.part(value, parameters[row]) for key, value in saved.items()}
        for group, saved in zip(
            self.optimizer.param_groups, state["optimizer"]["param_groups"], strict=True
        ):
            # the rates and decays of this run take precedence
            saved |= {key: value for key, value in group.items() if key != "params"}
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.spent = state["average"], state["step"], state["spent"]
        self.extra = state.get("extra", {})


def _check_moments(saved: Mapping[str, Any], parameter: torch.nn.Parameter) -> None:
    """Raise ValueError unless this is AdamW's state of ``parameter``."""
    step, *moments = (saved[name] for name in ("step", "exp_avg", "exp_avg_sq"))
    if len(saved) != 3 or step.ndim or any(moment.shape != parameter.shape for moment in moments):
        raise ValueError("the optimizer's state is of other parameters")


class _Hashing:
    """A file that hashes what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256 = file, sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _save(state: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write a state with torch.save, a zip archive, and its SHA-256 as the archive's comment."""
    hashing = _Hashing(file)
    torch.save(state, hashing)
    file.seek(-2, os.SEEK_END)  # an archive ends with the length of its comment
    file.write(
        len(_MARK + _ZEROS).to_bytes(2, "little") + _MARK + hashing.sha256.hexdigest().encode()
    )


def _is_whole(path: Path) -> bool:
    """Return whether the file is intact.

    Files of older versions carry no hash; they are checked by torch's own checksums.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END) - len(_MARK + _ZEROS) - 2
        if size > 0:
            file.seek(size)
            tail = file.read()[2:]
            if tail.startswith(_MARK):
                return _hash(file, size) == tail[len(_MARK) :].decode("latin-1")
    with zipfile.ZipFile(path) as archive:
        return not archive.comment and archive.testzip() is None


def _hash(file: IO[bytes], size: int) -> str:
    """Hash the first ``size`` bytes of a file as if an archive without a comment ended there."""
    digest, left = sha256(), size
    file.seek(0)
    while left and (part := file.read(min(left, 1 << 20))):
        digest.update(part)
        left -= len(part)
    digest.update(bytes(2))
    return digest.hexdigest()


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint after verifying its hash. Raises BadIndex."""
    hint = "remove it to start the run again"
    if not path.is_file():
        raise BadIndex(f"{path} is damaged: it is not a regular file; {hint}")
    try:
        if not _is_whole(path):
            raise BadIndex(f"{path} is damaged: its checksum does not match; {hint}")
        state = torch.load(path, weights_only=True, map_location=device)
    except _DAMAGE as error:
        raise BadIndex(f"{path} is damaged ({_first_line(error)}); {hint}") from None
    if not _is_state(state):
        raise BadIndex(f"{path} is not a training checkpoint; {hint}")
    return state


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _is_state(state: Any) -> bool:
    if not isinstance(state, dict):
        return False
    tables = all(
        isinstance(state.get(name), Mapping) for name in ("network", "average", "optimizer")
    )
    step, spent = state.get("step"), state.get("spent")
    counted = (
        isinstance(step, int) and step >= 0 and isinstance(spent, int | float) and 0 <= spent < 1e12
    )
    return tables and counted and isinstance(state.get("extra", {}), dict)


def _differences(state: Mapping[str, Any], likes: Mapping[str, Any]) -> list[str]:
    """Name the tensors that only one state has or whose shape or dtype differs."""
    shapes = {name: (tuple(like.shape), like.dtype) for name, like in likes.items()}
    given = {
        name: (tuple(value.shape), value.dtype)
        for name, value in state.items()
        if torch.is_tensor(value)
    }
    return sorted(
        name for name in {*shapes, *map(str, state)} if shapes.get(name) != given.get(name)
    )
