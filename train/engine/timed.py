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

from . import limits
from .checkpoint import TrainingCheckpoint
from .state import TrainingState, warm_cosine


@dataclass(frozen=True)
class TimedRecipe:
    """Settings of every run of so many minutes, or else steps. Raises BadPrompt for invalid ones.

    floor: what is added to the factor of the learning rates. clip: the gradient's norm. report,
    keep: steps from one progress line or checkpoint to the next.
    """

    minutes: float = 0.0
    steps: int = 0
    lr: float = 1e-3
    weight_decay: float = 0.02
    warm_up: int = 100
    ema: float = 0.996
    floor: float = 0.005
    clip: float = 1.0
    report: int = 50
    keep: int = 100
    first: int = 0  # seed of the first tile

    def __post_init__(self) -> None:
        length = (self.steps, limits.COUNT) if self.steps else (self.minutes, limits.MINUTES)
        name = "--steps" if self.steps else "--minutes"
        rest = {"--lr": (self.lr, limits.RATE), "--first": (self.first, limits.SEED)}
        limits.check({name: length} | rest)


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

    def __init__(self, state: TrainingState, recipe: TimedRecipe) -> None:
        self.state, self.recipe = state, recipe

    @abstractmethod
    def loss(self) -> torch.Tensor | None:
        """Return the loss of a step, or None if there is nothing to learn from yet."""

    @abstractmethod
    def report(self) -> str:
        """Return the text of a progress line after the number of the step."""

    @property
    def share(self) -> float:
        """Return the share of the run that is over."""
        if self.recipe.steps:
            return self.state.step / self.recipe.steps
        return self.state.spent / (self.recipe.minutes * 60)

    @property
    def pace(self) -> float:
        """Return the seconds per step."""
        return self.state.spent / max(self.state.step, 1)

    @property
    def left(self) -> float:
        """Return the minutes left."""
        if self.recipe.steps:
            return self.pace * (self.recipe.steps - self.state.step) / 60
        return self.recipe.minutes - self.state.spent / 60

    def train(self) -> None:
        """Train until the end of the recipe's time."""
        last = time.monotonic()
        while self.share < 1:
            before = self.state.step
            self.update()
            last = self.state.elapse(last)
            step = self.state.step
            if step > before and step % self.recipe.report == 0:
                typer.echo(f"step {step}  {self.report()}", err=True)
            if step > before and step % self.recipe.keep == 0:
                self.state.keep()

    def update(self) -> None:
        """Make a step, if there is something to learn from."""
        recipe, state = self.recipe, self.state
        factor = warm_cosine(state.step, recipe.warm_up, self.share) + recipe.floor
        loss = self.loss()
        if loss is None:
            return
        state.optimizer.zero_grad()
        loss.backward()
        state.descend(factor, list(state.network.parameters()), recipe.clip)


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
