"""Train a task: warm-up and cosine, clipping, accumulation, weight averaging, checkpoints.

A run is a folder: the best weights with their config.json (served by ``file:FOLDER``), last/ with
the last ones, last.pt to resume from, metrics.jsonl, metrics.json of the best epoch, curves.png,
samples/, recipe.json, environment.json. All random numbers derive from the seed and the step's
number, so a run that was killed and resumed ends with identical bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import PIL.Image
import torch
import typer

from segclip.errors import BadIndex, BadPrompt, SegclipError

from . import limits, processes, sharding
from .checkpoint import TrainingCheckpoint
from .files import sweep
from .journal import ProgressLine, RunLog, check_recipe, digests, write_json
from .state import warm_cosine

BEST, LAST = ".", "last"  # subfolders of the best and the last weights


class Diverged(SegclipError):
    """The loss is not finite; the last good checkpoint is kept."""


@dataclass(frozen=True)
class LoopSettings:
    """Settings of the loop. Raises BadPrompt for values out of range.

    batch: over all processes. chunk: rows of a batch embedded at a time (gradient caching), 0 for
    all. accumulate: batches per step. warm_up: steps. clip: the gradient's norm. ema: decay of the
    served average, 0 for none. patience: epochs without improvement before stopping, 0 for never.
    minutes: between checkpoints within an epoch.
    """

    epochs: int = 10
    batch: int = 64
    chunk: int = 0
    accumulate: int = 1
    lr: float = 5e-4
    warm_up: int = 50
    weight_decay: float = 0.1
    clip: float = 1.0
    ema: float = 0.0
    patience: int = 0
    seed: int = 0
    bfloat16: bool = False
    minutes: float = 10.0

    def __post_init__(self) -> None:
        limits.check(
            {
                "--epochs": (self.epochs, limits.COUNT),
                "--batch": (self.batch, limits.COUNT),
                "--chunk": (self.chunk, limits.NONE_OR_MORE),
                "--accumulate": (self.accumulate, limits.COUNT),
                "--lr": (self.lr, limits.RATE),
                "--warm-up": (self.warm_up, limits.NONE_OR_MORE),
                "--weight-decay": (self.weight_decay, limits.FACTOR),
                "--clip": (self.clip, limits.POSITIVE),
                "--ema": (self.ema, limits.DECAY),
                "--patience": (self.patience, limits.NONE_OR_MORE),
                "--seed": (self.seed, limits.SEED),
            }
        )


class NamedBatch(Protocol):
    """A batch that can name its images, for error messages."""

    count: int

    def names(self) -> list[str]:
        """Return the images' names."""


@dataclass(frozen=True, eq=False)
class Validation:
    """Metrics on the held-out data by name, and an image of examples."""

    figures: Mapping[str, float]
    examples: PIL.Image.Image | None = None


class Task(Protocol):
    """What the loop trains. monitor: the metric that selects the best epoch, higher is better."""

    network: torch.nn.Module
    monitor: str

    def groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's groups of parameters."""

    def steps(self) -> int:
        """Return the number of steps of an epoch."""

    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        """Yield an epoch's batches from number ``first`` on."""

    def backward(self, batch: Any) -> torch.Tensor:
        """Add a batch's gradients; return its loss."""

    def validate(self) -> Validation:
        """Measure the network on the held-out data."""

    def save(self, folder: Path) -> None:
        """Write the network as a checkpoint that can be served."""


class Loop:
    """Train a task in a folder."""

    def __init__(
        self, task: Task, folder: Path, settings: LoopSettings, recipe: Mapping[str, Any]
    ) -> None:
        self.task, self.folder, self.settings, self.recipe = task, folder, settings, recipe
        self.groups = task.groups()
        self.parameters = [p for group in self.groups for p in group["params"]]
        self.spread = sharding.is_spread(task.network)
        fused = all(p.device.type in ("cpu", "cuda") for p in self.parameters)
        # foreach and fused cannot mix sharded and plain tensors
        at_once = {"foreach": False, "fused": False} if self.spread else {"fused": fused}
        self.optimizer = torch.optim.AdamW(
            self.groups,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            betas=(0.9, 0.98),
            eps=1e-6,
            **at_once,
        )
        self.state = TrainingCheckpoint(folder, task.network, self.optimizer, settings.ema)
        self.state.extra = {
            "epoch": 0,
            "first": 0,
            "losses": [],
            "best": -math.inf,
            "stale": 0,
            "written": {},
        }
        self.total = math.ceil(task.steps() / settings.accumulate) * settings.epochs

    def resume(self) -> None:
        """Resume from last.pt, if there is one, and restore damaged weights.

        Raises BadPrompt for other settings, BadIndex for a damaged checkpoint.
        """
        if not (self.folder / "last.pt").exists():
            return
        check_recipe(self.folder, self.recipe, resumes=True)
        fresh = self.state.extra
        self.state.resume()
        if not _is_resumable(self.state.extra):
            raise BadIndex(
                f"{self.folder / 'last.pt'} does not hold the position of the run; "
                "remove it to start the run again"
            )
        self.state.extra = fresh | self.state.extra
        self._restore()

    def _restore(self) -> None:
        """Rewrite served weights that are damaged from the last checkpoint."""
        kept, restored = self.state.extra, False
        for name, written in list(kept["written"].items()):
            damaged = digests(self.folder / name) != written
            if not (processes.agree(damaged) if self.spread else damaged and processes.rank() == 0):
                continue
            typer.echo(
                f"{self.folder / name} is damaged; restoring it from the last checkpoint",
                err=True,
            )
            with self._averaged():
                self.task.save(self.folder / name)
            kept["written"][name] = digests(self.folder / name)
            if name == BEST:
                kept["best"] = -math.inf  # the next epoch replaces it
            restored = True
        if restored:
            self._keep()

    def run(self) -> None:
        """Train until the last epoch, or until patience runs out."""
        kept, settings = self.state.extra, self.settings
        leads = processes.rank() == 0
        if leads:
            sweep(self.folder, self.folder / LAST, self.folder / "samples")
        journal = RunLog(self.folder, self.recipe, epoch=kept["epoch"]) if leads else None
        images = self.task.steps() * settings.batch
        done = (kept["epoch"] * self.task.steps() + kept["first"]) * settings.batch
        progress = ProgressLine(
            images * settings.epochs, done, enabled=leads, file=self.folder / "progress.json"
        )
        while kept["epoch"] < settings.epochs:
            row = self._epoch(progress)
            kept["epoch"], kept["first"], kept["losses"] = kept["epoch"] + 1, 0, []
            if leads or self.spread:  # sharded saving needs every process
                self._finish(journal, row)
            if processes.agree(settings.patience and kept["stale"] >= settings.patience):
                typer.echo(
                    f"stopped: {settings.patience} epochs without a better {self.task.monitor}",
                    err=True,
                )
                break

    def _epoch(self, progress: ProgressLine) -> dict[str, float]:
        kept, settings = self.state.extra, self.settings
        self.task.network.train()
        began = saved = time.monotonic()
        waited, images = 0.0, 0
        batches = self.task.batches(kept["epoch"], kept["first"])
        while True:
            began_wait = time.monotonic()
            batch = next(batches, None)
            waited += time.monotonic() - began_wait
            if batch is None:
                break
            loss = self._step(batch, last=kept["first"] + 1 == self.task.steps())
            kept["losses"].append(loss)
            kept["first"] += 1
            images += settings.batch
            progress.advance(
                settings.batch, f"epoch {kept['epoch'] + 1}/{settings.epochs}  loss {loss:.3f}"
            )
            if kept["first"] % settings.accumulate == 0 and self._due(time.monotonic() - saved):
                self._keep()
                saved = time.monotonic()
        spent = time.monotonic() - began
        mean = sum(kept["losses"]) / max(len(kept["losses"]), 1)
        return {
            "epoch": kept["epoch"] + 1,
            "loss": mean,
            "images/s": images / spent,
            "data wait": waited / spent,
        }

    def _due(self, seconds: float) -> bool:
        """Return whether a checkpoint is due; sharded processes agree on the step."""
        due = seconds > self.settings.minutes * 60
        return bool(processes.agree(due)) if self.spread else due

    def _step(self, batch: NamedBatch, *, last: bool) -> float:
        """Accumulate a batch's gradients; update once there are enough."""
        kept, settings = self.state.extra, self.settings
        torch.manual_seed(
            settings.seed + 1_000_003 * (kept["epoch"] * self.task.steps() + kept["first"] + 1)
        )
        place = kept["first"] % settings.accumulate
        if place == 0:
            self.optimizer.zero_grad(set_to_none=True)
        loss = float(self.task.backward(batch))
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss is {loss} in epoch {kept['epoch'] + 1}, batch {kept['first'] + 1}: "
                f"{', '.join(batch.names()[:8])}, ...; {self.folder} keeps the last good "
                "checkpoint. "
                "Try a lower --lr or a longer --warm-up, or inspect these images"
            )
        if place == settings.accumulate - 1 or last:
            self._update(place + 1)
        return loss

    def _update(self, batches: int) -> None:
        settings, step = self.settings, self.state.step
        processes.average_gradients(
            sharding.by_kind(self.parameters)[0] if self.spread else self.parameters
        )
        if batches > 1:
            for p in self.parameters:
                if p.grad is not None:
                    p.grad /= batches
        factor = warm_cosine(step, settings.warm_up, step / max(self.total, 1))
        self.state.descend(factor, self.parameters, settings.clip)

    def _finish(self, journal: RunLog | None, row: dict[str, float]) -> None:
        """Validate an epoch, save the best and the last weights, write its metrics."""
        kept = self.state.extra
        with self._averaged():
            validation = self.task.validate()
            row |= validation.figures
            figure = row[self.task.monitor]
            if self.spread:  # batch norm statistics differ, but all processes must branch alike
                figure = processes.agree(figure)
            better = figure > kept["best"]
            kept["best"], kept["stale"] = (
                (figure, 0) if better else (kept["best"], kept["stale"] + 1)
            )
            for name in (LAST, BEST) if better else (LAST,):
                self.task.save(self.folder / name)
                kept["written"][name] = digests(self.folder / name)
        if journal is not None:
            if better:
                write_json(self.folder / "metrics.json", row)
            journal.add(row, validation.examples)
        self._keep()  # last: it records the hashes of the files above

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Replace the network's weights by their average, which is validated and served."""
        network = self.task.network
        trained = {name: value.clone() for name, value in network.state_dict().items()}
        network.load_state_dict(self.state.average)
        network.eval()
        try:
            yield
        finally:
            network.load_state_dict(trained)

    def _keep(self) -> None:
        if processes.rank() == 0 or self.spread:
            self.state.keep()


def _is_resumable(extra: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint holds a valid position of a run."""
    counts = (extra.get(name) for name in ("epoch", "first", "stale"))
    counted = all(type(count) is int and count >= 0 for count in counts)
    losses, written = extra.get("losses"), extra.get("written", {})
    listed = isinstance(losses, list) and all(isinstance(loss, float) for loss in losses)
    named = isinstance(written, dict) and written.keys() <= {BEST, LAST}
    return counted and listed and named and isinstance(extra.get("best"), float)


def start(loop: Loop, *, resume: bool) -> None:
    """Train from the start or resume; raises BadPrompt if the folder already holds a run."""
    if resume:
        loop.resume()
    elif (loop.folder / "last.pt").exists():
        raise BadPrompt(f"{loop.folder} already holds a run; add --resume, or choose another --out")
    elif (weights := next(loop.folder.glob("*.safetensors"), None)) is not None:
        raise BadPrompt(f"{weights} already exists, without a run to resume; choose another --out")
    loop.run()
