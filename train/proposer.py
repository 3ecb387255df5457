"""Train the mini proposer: a one-class YOLO-seg on a pretrained EfficientNet-Lite0, on tiles made as they are needed.

    python -m train.proposer --photos ../shared/coco-dev --photos ../shared/photos --foreground ../shared/foreground \
        --out weights/mini/proposer

Ultralytics' own network and losses; ours is the data: every tile is new, with exact masks instead of polygons. Tiles come
in several sizes, so that things as large as the frame that serving looks at are learned too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import safetensors.torch
import torch
import typer

from segclip.proposers import lite, yolo
from segclip.proposers.edges import EdgeOptions
from segclip.types import Array

from . import imagenet
from .checkpoint import Checkpoint
from .material import Material, load_material
from .scenes import SceneConfig

SIZES = {256: (12, 0.15), 320: (8, 0.4), 448: (4, 0.25), 640: (2, 0.2)}  # px of a tile: how many a step, how often
MIN_PIXELS = 60  # visible pixels an object needs to be a target
DRAWN = SceneConfig(objects=(1, 7), photo_share=0.6, across=(20, 240))
GAINS = {"box": 12.0, "cls": 0.5, "dfl": 1.5, "overlap_mask": True}  # 12: ultralytics' 7.5 leaves masks vague
TRUNK = 10  # layers of the network that are not YOLOv8n's neck and head
FROZEN = 3  # stages of the pretrained trunk that stay as they are
SERVED = {"image_size": 640, "confidence": 0.01, "iou": 0.8}
FITTED = 96  # tiles the first adapters are fitted on


@dataclass(frozen=True)
class Recipe:
    """Every setting of a run."""

    minutes: float = 70
    lr: float = 1e-3
    trunk_lr: float = 0.15  # share of it
    weight_decay: float = 1e-3
    warm_up: int = 60
    ema: float = 0.997
    first: int = 2_000_000  # seed of the first tile
    every: float = 20  # minutes between weights that could be shipped


class Run:
    """Train, keep checkpoints, go on from the last one."""

    def __init__(self, folder: Path, recipe: Recipe, material: Material, network: Any) -> None:
        self.recipe, self.material = recipe, material
        self.network = network.to(memory_format=torch.channels_last)
        self.architecture = network.yaml
        trunk = list(network.model[0].parameters()) if isinstance(network.model[0], lite.Lite0) else []
        mine = [value for value in network.parameters() if value.requires_grad]
        inside = [value for value in trunk if value.requires_grad]
        others = [value for value in mine if not any(value is other for other in inside)]
        decayed = [value for value in others if value.ndim > 1]
        plain = [value for value in others if value.ndim <= 1]
        self.bases = (recipe.lr, recipe.lr, recipe.lr * recipe.trunk_lr)
        groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}, {"params": inside}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
        self.state = Checkpoint(folder, network, self.optimizer, recipe.ema)
        self.told: dict[str, float] = {}

    def train(self, out: Path) -> None:
        """Train until the recipe's minutes are spent; writes weights into OUT on the way."""
        self.network.train()
        if isinstance(self.network.model[0], lite.Lite0):
            self.network.model[0].eval()  # its norms keep the statistics they came with
        last, written = time.monotonic(), self.state.spent
        while (share := self.state.spent / (self.recipe.minutes * 60)) < 1:
            self._update(share)
            now = time.monotonic()
            self.state.spent, last = self.state.spent + now - last, now
            if self.state.step % 25 == 0:
                self._report()
            if self.state.step % 100 == 0:
                self.state.keep()
            if self.state.spent - written > self.recipe.every * 60:
                written = self.state.spent
                self.export(out)

    def _report(self) -> None:
        left = self.recipe.minutes - self.state.spent / 60
        told = "  ".join(f"{name} {value:.3f}" for name, value in self.told.items())
        pace = self.state.spent / self.state.step
        typer.echo(f"step {self.state.step}  {pace:.2f} s/step  {left:.0f} min left  {told}", err=True)

    def _update(self, share: float) -> None:
        rate = min(1, (self.state.step + 1) / self.recipe.warm_up) * (0.5 + 0.5 * math.cos(math.pi * share)) + 0.01
        for group, base in zip(self.optimizer.param_groups, self.bases, strict=True):
            group["lr"] = base * rate
        rng = np.random.default_rng([self.recipe.first, self.state.step])
        size = int(rng.choice(list(SIZES), p=[often for _, often in SIZES.values()]))
        most = max(count for count, _ in SIZES.values())
        start = self.recipe.first + self.state.step * most
        batch = make_batch(self.material, range(start, start + SIZES[size][0]), size)
        loss, items = self.network.loss(batch)
        self.optimizer.zero_grad()
        (loss.sum() / SIZES[size][0]).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimizer.step()
        self.state.count()
        for name, value in items.items():
            if name != "sem_loss":
                self.told[name] = 0.98 * self.told.get(name, float(value)) + 0.02 * float(value)

    def export(self, out: Path) -> None:
        """Write the averaged weights for serving."""
        network = yolo.build(self.architecture)
        network.load_state_dict(self.state.average)
        yolo.save(network, out, SERVED | {"edges": asdict(EdgeOptions())})


def make_batch(material: Material, seeds: Sequence[int], size: int) -> dict[str, Any]:
    """Make tiles in the form that ultralytics' losses read."""
    pixels, masks, boxes, rows = [], [], [], []
    for row, seed in enumerate(seeds):
        tile, layers = material.tile(seed, size, DRAWN)
        codes, counts = np.unique(layers, return_counts=True)
        codes = codes[(codes != -1) & (counts >= MIN_PIXELS)]
        pixels.append(tile)
        masks.append(_targets(layers, codes, seed))
        boxes += [_box(layers == code) for code in codes]
        rows += [row] * len(codes)
    shown = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255  # channels-last as it lies
    return {
        "img": shown,
        "masks": torch.from_numpy(np.stack(masks)),
        "cls": torch.zeros(len(boxes), 1),
        "bboxes": torch.from_numpy(np.array(boxes, np.float32).reshape(-1, 4)),
        "batch_idx": torch.tensor(rows, dtype=torch.float32),
    }


def _box(mask: Array) -> tuple[float, float, float, float]:
    """Return the tight box as centre and size over the tile's side."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x1, x2, y1, y2 = xs[0], xs[-1] + 1, ys[0], ys[-1] + 1
    side = len(mask)
    return (x1 + x2) / 2 / side, (y1 + y2) / 2 / side, (x2 - x1) / side, (y2 - y1) / side


def _targets(layers: Array, codes: Array, seed: int) -> Array:
    """Number the targets on the prototypes' grid, a quarter of the tile's side, from 1 on; 0 is none.

    Each cell takes one of its sixteen pixels, which one by the seed, so that no edge is shifted on average.
    """
    dx, dy = seed & 3, seed >> 2 & 3
    grid = layers[dy::4, dx::4]
    numbers = np.zeros(grid.shape, np.uint8)
    for number, code in enumerate(codes, 1):
        numbers[grid == code] = number
    return numbers


def pretrained(start: Path | None, material: Material) -> Any:
    """Build the network: trunk from ImageNet, neck and head of an earlier proposer where there is one.

    start: an earlier proposer's folder; with another trunk than ours, ours is fitted to say what its trunk says.
    """
    network = yolo.build(lite.ARCHITECTURE)
    if start is None:
        imagenet.load(network.model[0])
    else:
        earlier = yolo.build(yolo.described(start)["architecture"])
        earlier.load_state_dict(safetensors.torch.load_file(start / "model.safetensors"))
        if isinstance(earlier.model[0], lite.Lite0):
            network = earlier
        else:
            imagenet.load(network.model[0])
            for number in range(TRUNK - 1, len(network.model)):
                network.model[number].load_state_dict(earlier.model[number].state_dict())
            fit_adapters(network, earlier, material)
    return network


ADAPTED = (4, 6, 8)  # the layers of both trunks whose maps the neck reads, strides 8, 16 and 32


@torch.no_grad()
def fit_adapters(network: Any, earlier: Any, material: Material) -> None:
    """Fit the convolutions behind the trunk, by least squares, to what an earlier YOLOv8n's trunk says there."""
    network.eval()
    earlier.eval()
    said: dict[int, list[torch.Tensor]] = {number: [] for number in ADAPTED}
    wanted: dict[int, list[torch.Tensor]] = {number: [] for number in ADAPTED}
    hooks = [
        earlier.model[number].cv2.bn.register_forward_hook(lambda _, __, out, n=number: wanted[n].append(_flat(out)))
        for number in ADAPTED
    ]
    for seed in range(FITTED // 8):
        pixels = make_batch(material, range(seed * 8, seed * 8 + 8), 320)["img"]
        earlier(pixels)
        for number, taken in zip(ADAPTED, network.model[0](pixels)[2:], strict=True):
            said[number].append(_flat(taken))
    for hook in hooks:
        hook.remove()
    for number in ADAPTED:
        given, asked = torch.cat(said[number]).double(), torch.cat(wanted[number]).double()
        mean, goal = given.mean(dim=0), asked.mean(dim=0)
        centred = given - mean
        ridge = centred.T @ centred + 1e-3 * len(given) * centred.var(dim=0).mean() * torch.eye(given.shape[1])
        weight = torch.linalg.solve(ridge, centred.T @ (asked - goal)).T
        made = given @ weight.T
        layer = network.model[number]
        layer.conv.weight.copy_(weight[..., None, None])
        layer.bn.running_mean.copy_(made.mean(dim=0))
        layer.bn.running_var.copy_(made.var(dim=0))
        layer.bn.weight.copy_((made.var(dim=0) + layer.bn.eps).sqrt())
        layer.bn.bias.copy_(goal)
        share = 1 - (asked - goal - centred @ weight.T).var() / (asked - goal).var()
        typer.echo(f"layer {number}: {float(share):.2f} of the earlier trunk's variance", err=True)


def _flat(maps: torch.Tensor) -> torch.Tensor:
    return maps.permute(0, 2, 3, 1).flatten(0, 2)[:: 1 if maps.shape[-1] < 30 else 3]


def prepare(network: Any) -> Any:
    """Set what ultralytics' losses ask for, and which parameters stay as they are."""
    from ultralytics.utils import IterableSimpleNamespace

    network.args = IterableSimpleNamespace(**GAINS)
    network.requires_grad_(True)
    network.model[-1].dfl.requires_grad_(False)
    if isinstance(network.model[0], lite.Lite0):
        network.model[0].stem.requires_grad_(False)
        network.model[0].stages[:FROZEN].requires_grad_(False)
    return network


def main(
    out: Annotated[Path, typer.Option(help="Folder for model.safetensors and config.json.")],
    photos: Annotated[list[Path], typer.Option(help="COCO-format folder of photos; may be given again.")],
    foreground: Annotated[Path | None, typer.Option(help="Folder of cut-outs' masks, beside their photos.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder for checkpoints.")] = Path("runs/proposer"),
    minutes: Annotated[float, typer.Option(help="Time to train; the learning rate falls to its end by then.")] = 70,
    start: Annotated[Path | None, typer.Option(help="Folder of an earlier proposer to start from.")] = None,
    first: Annotated[int, typer.Option(help="Seed of the first tile; another for every leg.")] = Recipe.first,
    lr: Annotated[float, typer.Option(help="The highest learning rate.")] = Recipe.lr,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in RUNS.")] = False,
) -> None:
    """Train the mini proposer and write it."""
    cv2.setNumThreads(1)
    material = load_material(photos, foreground)
    network = prepare(pretrained(start, material))
    run = Run(runs, Recipe(minutes=minutes, first=first, lr=lr), material, network)
    if resume:
        run.state.resume()
    run.train(out)
    run.state.keep()
    run.export(out)
    typer.echo(f"{out}: {run.state.step} steps in {run.state.spent / 60:.0f} minutes")


if __name__ == "__main__":
    typer.run(main)
