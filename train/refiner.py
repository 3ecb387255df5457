"""Train mini-sam's refiner, which corrects its masks inside each object's own window.

    python -m train.refiner weights/mini/sam --photos ../shared/coco-dev --photos ../shared/photos \
        --foreground ../shared/foreground

The promptable network stays as it is. It is prompted as in `train.sam`, by a first prompt and
corrections of what the refiner makes of the answer; each answer is kept for a while and learned
from about ``reuse`` times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer

from segclip.errors import BadPrompt
from segclip.proposers import refiner as close
from segclip.proposers import sam
from segclip.proposers.edges import EdgeOptions
from segclip.proposers.logits import Axis, Sampler
from segclip.proposers.refiner import PLANES, FocusOptions, GivenPrompt, Refiner, Window
from segclip.types import Array, Image, Masks

from .engine import command
from .engine.checkpoint import TrainingCheckpoint
from .engine.clicks import ClickPrompt, correction, first_prompt
from .engine.mask_loss import iou, mask_loss
from .engine.options import FirstTile, Foreground, Minutes, PeakRate, Photos, ResumeRuns, Runs
from .engine.prompting import decode
from .engine.timed import RunningMeans, ServedRun, TimedRecipe
from .scenes.material import Material, load_material
from .scenes.tiles import CELL, Tile, make_tile

FOCUS = FocusOptions()
# a refiner's outline needs less correction than SAM's
EDGES = EdgeOptions(radius=8, smoothness=1e-4)
ROUNDS = 3
FAST_BFLOAT16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
EMPTY = 40  # pixels of the window an object must have to be learned from


@dataclass(frozen=True)
class RefinerRecipe(TimedRecipe):
    """Every setting of a run."""

    minutes: float = 60
    batch: int = 32
    lr: float = 2e-3
    ema: float = 0.998
    keep: int = 500
    kept: int = 8000  # answers
    reuse: float = 4.0  # times each answer is learned from
    first: int = 650_000


class Store:
    """The last answers: the planes of their windows, float16 (N, 7, S, S), and the object's shares.

    truth: uint8 (N, S, S).
    """

    def __init__(self, most: int, size: int) -> None:
        self.planes = np.zeros((most, PLANES, size, size), np.float16)
        self.truth = np.zeros((most, size, size), np.uint8)
        self.added = 0

    def add(self, planes: Array, truth: Array) -> None:
        """Add one, in the place of the oldest."""
        row = self.added % len(self.planes)
        self.planes[row], self.truth[row] = planes, np.rint(255 * truth)
        self.added += 1

    def draw(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw some at random, every second one mirrored: float32 (B, 7, S, S) and (B, 1, S, S)."""
        rows = rng.integers(min(self.added, len(self.planes)), size=count)
        planes = torch.from_numpy(self.planes[rows].astype(np.float32))
        truth = torch.from_numpy(self.truth[rows].astype(np.float32))[:, None] / 255
        flipped = torch.from_numpy(rng.random(count) < 0.5)
        planes[flipped], truth[flipped] = planes[flipped].flip(-1), truth[flipped].flip(-1)
        return planes, truth


class RefinerRun(ServedRun):
    """Train the refiner on answers of the promptable network, which it collects on the way.

    After a resume new answers are collected, of other tiles.
    """

    recipe: RefinerRecipe

    def __init__(
        self, folder: Path, given: Path, recipe: RefinerRecipe, material: Material
    ) -> None:
        self.material = material
        self.sam: Any = sam.load(given)[0].eval().requires_grad_(False)
        torch.manual_seed(0)
        self.network = Refiner(FOCUS).to(memory_format=torch.channels_last)
        parameters = self.network.parameters()
        optimizer = torch.optim.AdamW(
            parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
        super().__init__(TrainingCheckpoint(folder, self.network, optimizer, recipe.ema), recipe)
        self.store = Store(recipe.kept, FOCUS.size)
        self.averages = RunningMeans(0.995)

    @property
    def tiles(self) -> int:
        """Return the number of tiles that answers were collected of."""
        return int(self.state.extra.get("tiles", 0))

    def report(self) -> str:
        """Return the rate, the minutes left and the IoU reached."""
        rate = self.state.step / max(self.state.spent, 1)
        return f"{rate:.2f} steps/s  {self.left:.0f} min left  IoU: {self.averages.line()}"

    def loss(self) -> torch.Tensor | None:
        """Return the loss of a batch; None where answers are collected instead."""
        if self.store.added < self.recipe.batch * max(8, self.state.step / self.recipe.reuse):
            self.collect()
            return None
        rng = np.random.default_rng([self.recipe.first, self.state.step])
        planes, truth = self.store.draw(rng, self.recipe.batch)
        self.network.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=FAST_BFLOAT16):
            logits = self.network(planes.to(memory_format=torch.channels_last)).float()
        self._average("refined", logits.detach(), truth)
        return mask_loss(logits, truth).mean()

    def collect(self) -> None:
        """Ask about a tile's objects and keep the answers."""
        seed = self.recipe.first + self.tiles
        self.state.extra["tiles"] = self.tiles + 1
        if (tile := make_tile(seed, self.material)) is None:
            return
        self.network.eval()
        rng = np.random.default_rng([seed, 3])
        for planes, truth, turn in answers(self.sam, self.network, tile, rng):
            self.store.add(planes, truth)
            self._average(
                f"coarse {turn}",
                torch.from_numpy(planes[None, 3:4]),
                torch.from_numpy(truth)[None, None],
            )

    def _average(self, name: str, logits: torch.Tensor, truth: torch.Tensor) -> None:
        self.averages.add(name, float(iou(logits, truth).mean()))

    def start_from(self, folder: Path) -> None:
        """Take the refiner of a trained mini-sam. Raises BadPrompt where it has none."""
        trained = sam.load(folder)[0]
        if not hasattr(trained, "refiner"):
            raise BadPrompt(f"{folder} holds no refiner to go on from")
        self.network.load_state_dict(trained.refiner.state_dict())
        self.state.restart()

    def export(self, folder: Path) -> None:
        """Put the averaged weights beside the promptable network's, for serving."""
        network = Refiner(FOCUS)
        network.load_state_dict(self.state.average)
        sam.add_refiner(folder, network, EDGES)


@torch.no_grad()
def answers(
    network: Any, refiner: Refiner, tile: Tile, rng: np.random.Generator
) -> Iterator[tuple[Array, Array, int]]:
    """Yield each answer about a tile's objects: input planes, true shares, corrections so far."""
    pixels = torch.from_numpy(tile.pixels).permute(2, 0, 1)[None].float() / 255
    maps = network.image_encoder(pixels)
    axis = Axis.spanning(tile.side // CELL, tile.side // CELL, tile.plain.shape[0])
    sampler, image = Sampler(axis, axis), Image(tile.plain, "tile")
    gain = len(tile.plain) / tile.side
    first = [first_prompt(rng, mask) for mask in tile.masks]
    order = sorted(range(len(first)), key=lambda row: first[row].box is not None)
    prompts, masks, layers = (
        [first[row] for row in order],
        tile.masks[order],
        tile.plain_masks[order],
    )
    answered = None
    for turn in range(int(rng.integers(1, ROUNDS + 1))):
        logits, quality = decode(network, maps, prompts, answered, tile.corner)
        best = quality.argmax(dim=1)
        if turn:
            best[:] = 0
        best[[row for row, one in enumerate(prompts) if one.box is not None]] = 0
        answered = logits[torch.arange(len(logits)), best][:, None]
        windows, guesses = [], []
        for one, cells, layer in zip(prompts, answered[:, 0].numpy(), layers, strict=True):
            prompt = _given_prompt(one, gain)
            window = _jittered(_window(sampler, cells, image, prompt), rng)
            windows.append(
                (window, close.input_planes(image, (sampler, cells), window, prompt, FOCUS.size))
            )
            truth = close.cut(layer.astype(np.uint8)[..., None] * 255, window, FOCUS.size) / 2 + 0.5
            truth = truth.reshape(FOCUS.size, FOCUS.size) * _inside(window, image.size)
            if truth.sum() >= EMPTY:
                yield windows[-1][1], truth, turn
        fine = close.refine(refiner, [planes for _, planes in windows])
        for (window, _), cells in zip(windows, fine, strict=True):
            x, y, inside = close.corrected(cells, window, image.size)
            full = np.zeros(image.size, bool)
            full[y : y + inside.shape[0], x : x + inside.shape[1]] = inside > 0
            guesses.append(
                cv2.resize(full.astype(np.uint8), (tile.side,) * 2, interpolation=cv2.INTER_NEAREST)
                > 0
            )
        fixes = [correction(rng, real, guess) for real, guess in zip(masks, guesses, strict=True)]
        prompts = [one.corrected(fix) for one, fix in zip(prompts, fixes, strict=True)]


def _given_prompt(one: ClickPrompt, gain: float) -> GivenPrompt:
    clicks = np.array(one.clicks, np.float64).reshape(-1, 3) * (gain, gain, 1)
    return GivenPrompt(clicks, None if one.box is None else np.array(one.box) * gain)


def _window(sampler: Sampler, cells: Array, image: Image, prompt: GivenPrompt) -> Window:
    box = sampler.reach(cells > 0)
    tight = Masks.from_windows([(box[0], box[1], sampler.mask(cells, box))], image.size)
    return Window.around(
        tight.boxes[tight.areas > 0].astype(np.float64), prompt, replace(FOCUS, boxed=FOCUS.margin)
    )


def _jittered(window: Window, rng: np.random.Generator) -> Window:
    side = window.side * float(np.exp(rng.uniform(-0.15, 0.25)))
    dx, dy = rng.uniform(-0.08, 0.08, 2) * side
    middle = window.x + window.side / 2 + dx, window.y + window.side / 2 + dy
    return Window(middle[0] - side / 2, middle[1] - side / 2, side)


def _inside(window: Window, size: tuple[int, int]) -> Array:
    """Mark the window's pixels inside the image, bool (S, S): beyond it ``cut`` fills with grey."""
    places = (np.arange(FOCUS.size) + 0.5) * window.side / FOCUS.size
    rows, columns = (
        (at + places >= 0) & (at + places < end)
        for at, end in zip((window.y, window.x), size, strict=True)
    )
    return rows[:, None] & columns


def main(
    given: Annotated[
        Path, typer.Argument(help="Folder of a trained mini-sam; the refiner is written into it.")
    ],
    photos: Photos,
    foreground: Foreground = None,
    runs: Runs = Path("runs/refiner"),
    start: Annotated[
        Path | None, typer.Option(help="Folder of a mini-sam whose refiner to go on from.")
    ] = None,
    first: FirstTile = RefinerRecipe.first,
    lr: PeakRate = RefinerRecipe.lr,
    minutes: Minutes = RefinerRecipe.minutes,
    resume: ResumeRuns = False,
) -> None:
    """Train a refiner and put it beside mini-sam."""
    cv2.setNumThreads(1)
    recipe = RefinerRecipe(minutes=minutes, lr=lr, first=first)
    run = RefinerRun(runs, given, recipe, load_material(photos, foreground))
    if start:
        run.start_from(start)
    run.carry_out(given, resume=resume)


if __name__ == "__main__":
    command.run(main)
