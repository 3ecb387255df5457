"""Train for some minutes or steps: schedule, gradient steps, progress lines and checkpoints.

``engine.loop`` trains for epochs over a data set; the recipes here make their batches without end.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
import typer

from .checkpoint import TrainingCheckpoint
from .state import TrainingState, warm_cosine


@dataclass(frozen=True)
class Schedule:
    """How long a run is, and what happens on the way.

    minutes, steps: the length, one of the two. warm_up: steps. floor: what is added to the factor
    of the learning rates. clip: the gradient's norm. report, keep: steps from one progress line or
    checkpoint to the next.
    """

    minutes: float = 0.0
    steps: int = 0
    warm_up: int = 100
    floor: float = 0.0
    clip: float = 1.0
    report: int = 50
    keep: int = 100


class RunningMeans:
    """Moving averages of figures by name; ``decay`` is the share of what was before."""

    def __init__(self, decay: float = 0.98) -> None:
        self.decay = decay
        self.values: dict[str, float] = {}

    def add(self, name: str, value: float) -> None:
        """Add a figure; the first of its name is its average."""
        before = self.values.get(name, value)
        self.values[name] = self.decay * before + (1 - self.decay) * value

    def line(self, *, in_order: bool = True) -> str:
        """List the averages, sorted by name or in the order in which they were added."""
        rows = sorted(self.values.items()) if in_order else self.values.items()
        return "  ".join(f"{name} {value:.3f}" for name, value in rows)


class TimedRun(ABC):
    """Train a network by the losses of a recipe."""

    def __init__(self, state: TrainingState, schedule: Schedule) -> None:
        self.state, self.schedule = state, schedule

    @abstractmethod
    def loss(self) -> torch.Tensor | None:
        """Return the loss of a step, or None if there is nothing to learn from yet."""

    @abstractmethod
    def report(self) -> str:
        """Return what a progress line says after the number of the step."""

    @property
    def share(self) -> float:
        """Return the share of the run that is over."""
        if self.schedule.steps:
            return self.state.step / self.schedule.steps
        return self.state.spent / (self.schedule.minutes * 60)

    @property
    def pace(self) -> float:
        """Return the seconds per step."""
        return self.state.spent / max(self.state.step, 1)

    @property
    def left(self) -> float:
        """Return the minutes left."""
        if self.schedule.steps:
            return self.pace * (self.schedule.steps - self.state.step) / 60
        return self.schedule.minutes - self.state.spent / 60

    def train(self) -> None:
        """Train until the end of the schedule."""
        last = time.monotonic()
        while self.share < 1:
            before = self.state.step
            self.update()
            last = self.state.elapse(last)
            step = self.state.step
            if step > before and step % self.schedule.report == 0:
                typer.echo(f"step {step}  {self.report()}", err=True)
            if step > before and step % self.schedule.keep == 0:
                self.state.keep()

    def update(self) -> None:
        """Make a step, if there is something to learn from."""
        schedule, state = self.schedule, self.state
        factor = warm_cosine(state.step, schedule.warm_up, self.share) + schedule.floor
        loss = self.loss()
        if loss is None:
            return
        state.optimizer.zero_grad()
        loss.backward()
        state.descend(factor, list(state.network.parameters()), schedule.clip)


class ServedRun(TimedRun):
    """A timed run that is resumed from its checkpoint and writes a model for serving."""

    state: TrainingCheckpoint

    @abstractmethod
    def export(self, out: Path) -> None:
        """Write the averaged weights for serving."""

    def resume(self) -> None:
        """Resume from the last checkpoint, if there is one."""
        self.state.resume()

    def carry_out(self, out: Path, *, resume: bool) -> None:
        """Train to the end, keep a last checkpoint, and write the model into ``out``."""
        if resume:
            self.resume()
        self.train()
        self.state.keep()
        self.export(out)
        typer.echo(f"{out}: {self.state.step} steps in {self.state.spent / 60:.0f} minutes")
