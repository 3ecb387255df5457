"""What a training step changes: the weights, their running average, the optimizer, the counts."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch

from . import sharding

PAUSE = 60.0  # s


class TrainingState:
    """The network, its optimizer and its average over the steps, which is what is served.

    average: an exponential moving average of decay ``ema``; with ``ramp`` the decay is lower in the
    first steps. spent: seconds. The learning rates of the optimizer's groups are their maxima.
    """

    def __init__(
        self, network: Any, optimizer: torch.optim.Optimizer, ema: float, *, ramp: bool = True
    ) -> None:
        self.network, self.optimizer, self.ema, self.ramp = network, optimizer, ema, ramp
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.step, self.spent = 0, 0.0
        self.restart()

    def restart(self) -> None:
        """Restart the average from the network's current weights."""
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}

    def descend(self, factor: float, parameters: Sequence[torch.nn.Parameter], clip: float) -> None:
        """Update the weights by their gradients, and count the step.

        factor: of the learning rates. clip: the maximum norm of the gradient of ``parameters``.
        """
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        spread = sharding.is_spread(self.network)
        (sharding.clip if spread else torch.nn.utils.clip_grad_norm_)(parameters, clip)
        self.optimizer.step()
        scale = getattr(self.network, "logit_scale", None)
        if scale is not None:
            scale.data.clamp_(0, math.log(100))
        self.count()

    def count(self) -> None:
        """Count a step and update the average."""
        self.step += 1
        first = (1 + self.step) / (10 + self.step) if self.ramp else 1.0
        decay = min(self.ema, first)
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def elapse(self, since: float) -> float:
        """Add the seconds since a step began to the run's total; return the current time.

        At most PAUSE seconds are counted: a longer step was suspended, as on a laptop that was
        closed.
        """
        now = time.monotonic()
        self.spent += min(now - since, PAUSE)
        return now

    def keep(self) -> None:
        """Write nothing: this state is not resumed from."""


def warm_cosine(step: int, warm_up: int, share: float) -> float:
    """Return the factor of the learning rates: a linear warm-up times a cosine over the run.

    step: from 0. warm_up: steps. share: of the run that is over.
    """
    warm = min(1.0, (step + 1) / max(warm_up, 1))
    return warm * (0.5 + 0.5 * math.cos(math.pi * min(1.0, share)))
