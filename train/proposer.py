"""Train the mini proposer: a YOLOv8n-seg with one class, "object", on generated tiles.

    python -m train.proposer --photos ../shared/coco-dev --photos ../shared/photos \
        --foreground ../shared/foreground \
        --out weights/mini/proposer

The network and losses are Ultralytics'; the data are ours: every tile is new, with exact masks
instead of polygons. Tiles come in several sizes, so that objects as large as the serving frame are
learned too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import safetensors.torch
import torch
import typer

from segclip.proposers import yolo
from segclip.proposers.edges import EdgeOptions
from segclip.types import Array

from .engine import command
from .engine.checkpoint import TrainingCheckpoint
from .engine.options import (
    FirstTile,
    Foreground,
    Minutes,
    PeakRate,
    Photos,
    ResumeRuns,
    Runs,
    ServedOut,
)
from .engine.timed import RunningMeans, ServedRun, TimedRecipe
from .scenes.compose import SceneConfig
from .scenes.material import Material, load_material

ARCHITECTURE = "yolov8n-seg.yaml"  # plain convolutions: a CPU step takes a third of YOLO11n's
# side of a tile in px: tiles per step, probability
SIZES = {256: (12, 0.15), 320: (8, 0.4), 448: (4, 0.25), 640: (2, 0.2)}
MIN_PIXELS = 60  # minimum visible pixels of a target
DRAWN = SceneConfig(objects=(1, 7), photo_share=0.6, across=(20, 240))
# box 12: with Ultralytics' 7.5 masks stay vague
GAINS = {"box": 12.0, "cls": 0.5, "dfl": 1.5, "overlap_mask": True}
SERVED = {"image_size": 768, "again": 384, "confidence": 0.015, "iou": 0.7, "max_det": 400}


@dataclass(frozen=True)
class ProposerRecipe(TimedRecipe):
    """Settings of a run. every: minutes between exports."""

    minutes: float = 70
    lr: float = 8e-4
    weight_decay: float = 1e-3
    warm_up: int = 60
    ema: float = 0.995
    floor: float = 0.01
    clip: float = 10.0
    report: int = 25
    first: int = 2_000_000
    every: float = 20


class ProposerRun(ServedRun):
    """Train the network on new tiles; ``out``: folder that weights are written to on the way."""

    recipe: ProposerRecipe

    def __init__(
        self, folder: Path, recipe: ProposerRecipe, material: Material, network: Any, out: Path
    ) -> None:
        self.material, self.out = material, out
        self.network = network.to(memory_format=torch.channels_last)
        learned = [value for value in network.parameters() if value.requires_grad]
        kernels, others = ([v for v in learned if (v.ndim > 1) == many] for many in (True, False))
        groups = [{"params": kernels}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(
            groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
        super().__init__(TrainingCheckpoint(folder, network, optimizer, recipe.ema), recipe)
        self.averages = RunningMeans()
        self.exported = 0.0  # seconds of the run at the last export on the way
        self.network.train()

    def resume(self) -> None:
        """Resume from the last checkpoint, if there is one."""
        super().resume()
        self.exported = self.state.spent

    def report(self) -> str:
        """Return the pace, the minutes left and the losses."""
        losses = self.averages.line(in_order=False)
        return f"{self.pace:.2f} s/step  {self.left:.0f} min left  {losses}"

    def loss(self) -> torch.Tensor:
        """Return the loss of some tiles of one size."""
        if self.state.spent - self.exported > self.recipe.every * 60:
            self.exported = self.state.spent
            self.export(self.out)
        rng = np.random.default_rng([self.recipe.first, self.state.step])
        size = int(rng.choice(list(SIZES), p=[often for _, often in SIZES.values()]))
        most = max(count for count, _ in SIZES.values())
        start = self.recipe.first + self.state.step * most
        batch = make_batch(self.material, range(start, start + SIZES[size][0]), size)
        loss, items = self.network.loss(batch)
        for name, value in items.items():
            if name != "sem_loss":
                self.averages.add(name, float(value))
        return loss.sum() / SIZES[size][0]

    def export(self, out: Path) -> None:
        """Write the averaged weights for serving."""
        network = begin(None)
        network.load_state_dict(self.state.average)
        described = {"architecture": ARCHITECTURE, "nc": 1, "stride": 32}
        yolo.save(network, out, described | SERVED | {"edges": asdict(EdgeOptions())})


def make_batch(material: Material, seeds: Sequence[int], size: int) -> dict[str, Any]:
    """Make tiles in the format of Ultralytics' losses."""
    pixels, masks, boxes, rows = [], [], [], []
    for row, seed in enumerate(seeds):
        tile, layers = material.tile(seed, size, DRAWN)
        codes, counts = np.unique(layers, return_counts=True)
        codes = codes[(codes != -1) & (counts >= MIN_PIXELS)]
        pixels.append(tile)
        masks.append(_targets(layers, codes, seed))
        boxes += [_box(layers == code) for code in codes]
        rows += [row] * len(codes)
    # a channels-last view
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return {
        "img": stacked,
        "masks": torch.from_numpy(np.stack(masks)),
        "cls": torch.zeros(len(boxes), 1),
        "bboxes": torch.from_numpy(np.array(boxes, np.float32).reshape(-1, 4)),
        "batch_idx": torch.tensor(rows, dtype=torch.float32),
    }


def _box(mask: Array) -> tuple[float, float, float, float]:
    """Return the tight box as centre and size, relative to the tile's side."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x1, x2, y1, y2 = xs[0], xs[-1] + 1, ys[0], ys[-1] + 1
    side = len(mask)
    return (x1 + x2) / 2 / side, (y1 + y2) / 2 / side, (x2 - x1) / side, (y2 - y1) / side


def _targets(layers: Array, codes: Array, seed: int) -> Array:
    """Number the targets from 1 on the prototypes' grid, a quarter of the tile's side; 0 is none.

    Each cell samples one of its sixteen pixels, chosen by the seed, so that edges are not shifted
    on average.
    """
    dx, dy = seed & 3, seed >> 2 & 3
    grid = layers[dy::4, dx::4]
    numbers = np.zeros(grid.shape, np.uint8)
    for number, code in enumerate(codes, 1):
        numbers[grid == code] = number
    return numbers


def begin(start: Path | None) -> Any:
    """Build the network for the losses, with the weights of an earlier proposer if given."""
    with yolo.quiet():
        from ultralytics.nn.tasks import SegmentationModel
        from ultralytics.utils import IterableSimpleNamespace

        network: Any = SegmentationModel(ARCHITECTURE, nc=1, verbose=False)
    if start:
        network.load_state_dict(safetensors.torch.load_file(start / "model.safetensors"))
    network.args = IterableSimpleNamespace(**GAINS)
    network.model[-1].dfl.requires_grad_(False)  # it only computes expectations
    return network


def main(
    out: ServedOut,
    photos: Photos,
    foreground: Foreground = None,
    runs: Runs = Path("runs/proposer"),
    minutes: Minutes = ProposerRecipe.minutes,
    start: Annotated[
        Path | None, typer.Option(help="Folder of an earlier proposer to start from.")
    ] = None,
    first: FirstTile = ProposerRecipe.first,
    lr: PeakRate = ProposerRecipe.lr,
    resume: ResumeRuns = False,
) -> None:
    """Train the mini proposer and write it."""
    recipe = ProposerRecipe(minutes=minutes, first=first, lr=lr)
    cv2.setNumThreads(1)
    material = load_material(photos, foreground)
    run = ProposerRun(runs, recipe, material, begin(start), out)
    run.carry_out(out, resume=resume)


if __name__ == "__main__":
    command.run(main)
