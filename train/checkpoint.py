"""Keep a training run on disk: network, running average, optimiser, step and time, to go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from segclip.errors import SegclipError

from . import processes, sharding


class NotSaved(SegclipError):
    """Raise when a checkpoint cannot be written; the one before it is whole."""


class Checkpoint:
    """Hold what a run goes on from. average: an exponential moving average of the network, which is what is served."""

    def __init__(self, folder: Path, network: Any, optimizer: torch.optim.Optimizer, ema: float) -> None:
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

    def keep(self) -> None:
        """Write last.pt, whole or not at all; raises NotSaved.

        Of several processes the first writes; where the network is spread over them, all must ask.
        """
        partial = self.folder / "last.part"
        state = {"network": self.network.state_dict(), "average": self.average}
        state |= {"optimizer": self.optimizer.state_dict(), "step": self.step, "spent": self.spent}
        state = sharding.whole(state)
        if processes.rank() > 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.save(state | {"extra": self.extra}, partial)
        except (OSError, RuntimeError) as error:  # torch's writer tells a full disk as a RuntimeError
            partial.unlink(missing_ok=True)
            raise NotSaved(f"{self.folder / 'last.pt'} cannot be written, is the disk full? ({error})") from None
        partial.replace(self.folder / "last.pt")

    def resume(self) -> bool:
        """Go on from last.pt; tell whether there is one."""
        path = self.folder / "last.pt"
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True)
        likes = self.network.state_dict()
        for name in ("network", "average"):
            state[name] = {key: sharding.part(value, likes[key]) for key, value in state[name].items()}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for row, told in state["optimizer"]["state"].items():
            told |= {key: sharding.part(value, parameters[row]) for key, value in told.items()}
        for group, told in zip(self.optimizer.param_groups, state["optimizer"]["param_groups"], strict=True):
            told |= {key: group[key] for key in ("foreach", "fused")}  # this run's, which may be spread otherwise
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.spent = state["average"], state["step"], state["spent"]
        self.extra = state.get("extra", {})
        return True
