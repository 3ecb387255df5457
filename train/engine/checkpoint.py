"""Keep a training run on disk: network, running average, optimiser, step and time, to go on
from.
"""

from __future__ import annotations

import os
import pickle
import time
import zipfile
import zlib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import torch

from segclip.errors import BadIndex, NotWritable
from segclip.files import atomic

from . import processes, sharding
from .files import sweep

_DAMAGE = (  # what torch, pickle and zipfile let out when bytes are not what was written
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
PAUSE = 60.0  # s
_MARK = b"sha256 "
_ZEROS = b"0" * 64


class Checkpoint:
    """Hold what a run goes on from. average: an exponential moving average of the network, which is
    what is served.
    """

    def __init__(
        self, folder: Path, network: Any, optimizer: torch.optim.Optimizer, ema: float
    ) -> None:
        self.folder, self.network, self.optimizer, self.ema = folder, network, optimizer, ema
        self.step, self.spent = 0, 0.0  # steps and seconds
        self.extra: dict[str, Any] = {}  # what else a recipe goes on from
        self.restart()

    def restart(self) -> None:
        """Let the average begin at the network as it is."""
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}

    def count(self) -> None:
        """Count a step and take it into the average, the more the fewer there were."""
        self.step += 1
        decay = min(self.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def elapse(self, since: float) -> float:
        """Add the seconds since a step began to those of the run; return the time now, when the
        next one begins.

        A step that took longer than PAUSE was suspended, as on a laptop that was shut.
        """
        now = time.monotonic()
        self.spent += min(now - since, PAUSE)
        return now

    def keep(self) -> None:
        """Write last.pt, whole and on the disk, or not at all; raises NotWritable.

        Of several processes the first writes; where the network is spread over them, all must ask.
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
        except RuntimeError as error:  # what torch's writer makes of a full disk
            raise NotWritable(f"{path}: cannot be written, is the disk full? ({error})") from None

    def resume(self) -> bool:
        """Go on from last.pt; tell whether there is one. Raises BadIndex for what is damaged or of
        another model.
        """
        path = self.folder / "last.pt"
        if processes.rank() == 0:
            sweep(self.folder)
        if not path.exists():
            return False
        state = _read(path, next(self.network.parameters()).device)
        likes = self.network.state_dict()
        for name in ("network", "average"):
            if odd := _differences(state[name], likes):
                raise BadIndex(
                    f"{path} is of another model, which differs in {', '.join(odd[:3])}; take "
                    "another folder"
                )
        try:
            self._take(state, likes)
        except _DAMAGE as error:
            raise BadIndex(
                f"{path} does not fit this recipe ({error!r}); take another folder"
            ) from None
        return True

    def _take(self, state: dict[str, Any], likes: Mapping[str, Any]) -> None:
        for name in ("network", "average"):
            state[name] = {
                key: sharding.part(value, likes[key]) for key, value in state[name].items()
            }
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for row, told in state["optimizer"]["state"].items():
            _check_moments(told, parameters[row])
            told |= {key: sharding.part(value, parameters[row]) for key, value in told.items()}
        for group, told in zip(
            self.optimizer.param_groups, state["optimizer"]["param_groups"], strict=True
        ):
            told |= {
                key: value for key, value in group.items() if key != "params"
            }  # this run's, as it was asked for
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.spent = state["average"], state["step"], state["spent"]
        self.extra = state.get("extra", {})


def _check_moments(told: Mapping[str, Any], parameter: torch.nn.Parameter) -> None:
    """Raise ValueError unless this is what AdamW keeps of a parameter."""
    step, *moments = (told[name] for name in ("step", "exp_avg", "exp_avg_sq"))
    if len(told) != 3 or step.ndim or any(moment.shape != parameter.shape for moment in moments):
        raise ValueError("the optimizer's state is of other parameters")


class _Hashing:
    """Pass on what is written to a file, and hash it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256 = file, sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _save(state: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write a state as torch does, a zip archive, with the hash of all its bytes as the archive's
    comment.
    """
    hashing = _Hashing(file)
    torch.save(state, hashing)
    file.seek(-2, os.SEEK_END)  # an archive ends with the length of its comment
    file.write(
        len(_MARK + _ZEROS).to_bytes(2, "little") + _MARK + hashing.sha256.hexdigest().encode()
    )


def _is_whole(path: Path) -> bool:
    """Tell whether every byte is what was written; by torch's own checksums where an older version
    wrote the file.
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
    """Read a checkpoint whose every byte is what was written. Raises BadIndex."""
    way_on = "remove it to begin the run again"
    if not path.is_file():
        raise BadIndex(f"{path} is damaged, it is no regular file; {way_on}")
    try:
        if not _is_whole(path):
            raise BadIndex(
                f"{path} is damaged, its bytes are not those that were written; {way_on}"
            )
        state = torch.load(path, weights_only=True, map_location=device)
    except _DAMAGE as error:
        raise BadIndex(f"{path} is damaged ({_first_line(error)}); {way_on}") from None
    if not _is_state(state):
        raise BadIndex(f"{path} is no checkpoint of a run; remove it to begin the run again")
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
    """Name the tensors that one of two states lacks, or that are not of one shape and kind in
    both.
    """
    shapes = {name: (tuple(like.shape), like.dtype) for name, like in likes.items()}
    given = {
        name: (tuple(value.shape), value.dtype)
        for name, value in state.items()
        if torch.is_tensor(value)
    }
    return sorted(
        name for name in {*shapes, *map(str, state)} if shapes.get(name) != given.get(name)
    )
