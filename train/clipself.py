"""Let patches imitate what the CLIP says of crops: CLIPSelf (Wu et al. 2024). No captions, no
labels: any pictures.

    python -m train.clipself my-photos --start mini-clip --side 160 --stride 8 --out runs/self
    segclip segment desk.jpg "a red apple" --encoder file:runs/self

A picture is parted into a random grid of m x n boxes. The teacher, the CLIP as it is, embeds each
box's crop, and the mean of the student's patches inside the box is to be the same: the loss is 1 -
cosine. Crops are cut as serving cuts them, from DETAIL times the resolution the student sees.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import typer

from segclip import images
from segclip.encoders import checkpoints, patches
from segclip.errors import BadPrompt, UnknownName
from segclip.scoring.crops import cut
from segclip.types import Array, Image, Masks

from .captions import tables
from .captions.tables import Item
from .engine import command, limits, loop, processes
from .engine.feed import AUGMENTS, Augment, Pictures, ahead, readable, show, spread
from .engine.heads import with_head
from .engine.judge import in_chunks
from .engine.loop import Judged, Loop, Settings
from .engine.options import Out, Resume, Side, Stride, WarmUp
from .engine.start import Start, trained

DETAIL = 2
JUDGED = 500  # held-out pictures looked at each epoch


@dataclass(frozen=True)
class Recipe:
    """Hold every setting but the loop's.

    side: px of the student's images, 0 for the model's own. stride: px from patch to patch, 0 for
    the tower's own. split: the most boxes a grid has along a side. tower: the image tower's rate
    over the head's, 0 leaves it as it is.
    """

    side: int = 0
    stride: int = 0
    split: int = 6
    augment: str = "light"
    tower: float = 0.0

    def __post_init__(self) -> None:
        if self.augment not in AUGMENTS:
            raise UnknownName(
                f"unknown augmentation {self.augment!r}; choose one of {', '.join(AUGMENTS)}"
            )
        limits.check(
            {
                "--side": (self.side, limits.SIDE_OR_OWN),
                "--stride": (self.stride, limits.SIDE_OR_OWN),
                "--split": (self.split, limits.FEW),
                "--tower-lr": (self.tower, limits.FACTOR),
            }
        )


@dataclass(frozen=True, eq=False)
class Boxes:
    """Hold one process's part of a batch: pixels uint8 (B, S, S, 3), its boxes' crops uint8 (B * m
    * n, C, C, 3) by rows of the grid (m, n).
    """

    pixels: torch.Tensor
    crops: torch.Tensor
    grid: tuple[int, int]
    items: tuple[Item, ...]

    @property
    def count(self) -> int:
        """Count the pictures."""
        return len(self.items)

    def names(self) -> list[str]:
        """Name the pictures."""
        return [str(item.image) for item in self.items]


def pool(seen: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Take the mean of patches (B, h, w, D) over the area of each box of a grid (m, n): unit (B, m
    * n, D).
    """
    down, across = (_shares(*sides).to(seen) for sides in zip(grid, seen.shape[1:3], strict=True))
    return F.normalize(torch.einsum("mh,bhwd,nw->bmnd", down, seen, across), dim=-1).flatten(1, 2)


def _shares(boxes: int, cells: int) -> torch.Tensor:
    """Tell which share of each of ``boxes`` equal parts of a side is covered by each of ``cells``
    equal patches.
    """
    box, cell = torch.linspace(0, 1, boxes + 1)[:, None], torch.linspace(0, 1, cells + 1)
    shared = (torch.minimum(box[1:], cell[1:]) - torch.maximum(box[:-1], cell[:-1])).clamp(min=0)
    return shared / shared.sum(dim=1, keepdim=True)


def grid_boxes(size: int, grid: tuple[int, int]) -> Masks:
    """Part a square picture of ``size`` px into a grid (m, n) of boxes, row by row."""
    rows, columns = (np.linspace(0, size, parts + 1).round().astype(int) for parts in grid)
    windows = [
        (int(left), int(top), np.ones((bottom - top, right - left), bool))
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]
    return Masks.from_windows(windows, (size, size))


class ClipSelf:
    """Train a patch head, and the tower if asked to, to say of boxes what the model says of their
    crops.
    """

    monitor = "cosine"

    def __init__(
        self,
        start: Start,
        parts: tuple[Sequence[Item], Sequence[Item]],
        recipe: Recipe,
        settings: Settings,
    ) -> None:
        if settings.batch > len(parts[0]):
            raise BadPrompt(
                f"a batch of {settings.batch} is larger than the {len(parts[0])} pictures; lower "
                "--batch"
            )
        self.recipe, self.settings = recipe, settings
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.size, self.crop = recipe.side or start.size, start.size
        self.view = start.checkpoint.serving.policy.views[0]
        preprocess = checkpoints.preprocess_config(start.checkpoint, self.crop)
        self.mean, self.std = (
            torch.tensor(v, device=self.device) for v in (preprocess.mean, preprocess.std)
        )
        self.teacher = (
            start.model.to(self.device, memory_format=torch.channels_last)
            .requires_grad_(False)
            .eval()
        )
        tower, head, self.start = with_head(start, self.size, recipe.stride, scorer="pooled")
        self.network = torch.nn.ModuleDict(
            {"tower": tower.requires_grad_(recipe.tower > 0), "head": head}
        )
        self.items = parts[0]
        self.pictures = Pictures(self.items, self.size * DETAIL, start.checkpoint.serving.policy)
        self.held_out = [self._hold(item, row) for row, item in enumerate(spread(parts[1], JUDGED))]

    def groups(self) -> list[dict[str, Any]]:
        """Train the head, and the tower at its rate."""
        rates = {"head": 1.0, "tower": self.recipe.tower}
        return [
            {"params": list(self.network[part].parameters()), "lr": self.settings.lr * rate}
            for part, rate in rates.items()
            if rate
        ]

    def steps(self) -> int:
        """Count the batches of an epoch."""
        return len(self.items) // self.settings.batch

    def batches(self, epoch: int, first: int) -> Iterator[Boxes]:
        """Give an epoch's batches from the ``first`` on, of each the part of this process."""
        self.network["tower"].eval()  # statistics of batch norms stay those of the teacher
        size = self.settings.batch
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self.items))
        share = processes.mine(size // processes.world())
        jobs = (
            partial(self._batch, order[at * size : (at + 1) * size][share], epoch, at)
            for at in range(first, self.steps())
        )
        return ahead(jobs)

    def _batch(self, rows: Array, epoch: int, at: int) -> Boxes:
        grid = self._grid(epoch, at)
        augment = AUGMENTS[self.recipe.augment]
        shown = [
            self._part(
                np.random.default_rng([self.settings.seed, epoch, 0, int(row)]),
                self.pictures[row],
                augment,
                grid,
            )
            for row in rows
        ]
        pixels, crops = (
            torch.from_numpy(np.concatenate(part)) for part in zip(*shown, strict=True)
        )
        return Boxes(pixels, crops, grid, tuple(self.items[row] for row in rows))

    def _grid(self, *place: int) -> tuple[int, int]:
        rng = np.random.default_rng([self.settings.seed, *place])
        down, across = rng.integers(1, self.recipe.split + 1, 2)
        return int(down), int(across)

    def _part(
        self, rng: np.random.Generator, picture: Array, augment: Augment, grid: tuple[int, int]
    ) -> tuple[Array, Array]:
        """Show a picture: to the student uint8 (1, S, S, 3), and its boxes to the teacher (m * n,
        C, C, 3).
        """
        large = show(rng, picture, self.size * DETAIL, augment, flip=True)
        crops = cut(Image(large), grid_boxes(len(large), grid), self.view, self.crop)
        return cv2.resize(large, (self.size, self.size), interpolation=cv2.INTER_AREA)[None], crops

    def _hold(self, item: Item, row: int) -> tuple[torch.Tensor, tuple[int, int], torch.Tensor]:
        """Keep of a held-out picture what the student sees, a grid, and what the teacher says of it
        (1, m * n, D).
        """
        grid = self._grid(0, row)
        picture = Pictures([item], self.size * DETAIL, self.start.checkpoint.serving.policy)[0]
        pixels, crops = self._part(np.random.default_rng(row), picture, AUGMENTS["none"], grid)
        told = torch.from_numpy(in_chunks(self._teach, torch.from_numpy(crops)))
        return torch.from_numpy(pixels), grid, told[None]

    def _light(self, pixels: torch.Tensor) -> torch.Tensor:
        light = (pixels.to(self.device, torch.float32) / 255 - self.mean) / self.std
        return light.permute(0, 3, 1, 2)

    def _teach(self, crops: torch.Tensor) -> torch.Tensor:
        """Embed crops uint8 (N, C, C, 3) with the teacher: unit (N, D)."""
        with torch.no_grad():
            return F.normalize(self.teacher.encode_image(self._light(crops)), dim=-1)

    def see(self, pixels: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Embed the boxes of pictures uint8 (B, S, S, 3) by their patches: unit (B, m * n, D)."""
        return pool(
            self.network["head"](patches.look(self.network["tower"], self._light(pixels))), grid
        )

    def backward(self, batch: Boxes) -> torch.Tensor:
        """Take the gradients of a batch and give its loss."""
        told = self._teach(batch.crops).unflatten(0, (batch.count, -1))
        loss = (1 - (self.see(batch.pixels, batch.grid) * told).sum(dim=-1)).mean()
        loss.backward()
        return loss.detach()

    def judge(self) -> Judged:
        """Compare the held-out pictures' boxes with their crops: the mean cosine."""
        with torch.no_grad():
            found = [
                (self.see(pixels, grid).cpu() * told).sum(dim=-1).mean()
                for pixels, grid, told in self.held_out
            ]
        return Judged({"cosine": float(torch.stack(found).mean())})

    def save(self, folder: Path) -> None:
        """Write the model, the student's tower and head in it, for serving by dense features."""
        model = copy.deepcopy(self.teacher)
        model.visual.load_state_dict(self.network["tower"].state_dict())
        model.patch_head = self.network["head"]
        self.start.save(model, folder)


def parts_of(folder: Path, *, share: float, skip_bad: bool) -> tuple[list[Item], list[Item]]:
    """List a folder's pictures and part them; raises BadImage when there is no folder."""
    items = [Item(path, (), str(path.relative_to(folder))) for path in images.walk(folder)]
    return tables.split(readable(items)[0] if skip_bad else items, share)


def main(
    data: Annotated[Path, typer.Argument(help="A folder of pictures, whatever they show.")],
    start: Annotated[
        str, typer.Option(help="The CLIP that is imitated: mini-clip, file:RUN, MODEL/TAG.")
    ],
    out: Out,
    side: Side = 0,
    stride: Stride = 0,
    split: Annotated[int, typer.Option(help="The most boxes along a side of a picture.")] = 6,
    tower_lr: Annotated[
        float, typer.Option(help="The image tower's rate over the head's; 0 leaves it as it is.")
    ] = 0,
    augment: Annotated[str, typer.Option(help=f"{', '.join(AUGMENTS)}.")] = "light",
    held_out: Annotated[float, typer.Option(help="Share of the pictures that judge.")] = 0.1,
    epochs: int = 6,
    batch: int = 16,
    lr: float = 5e-4,
    warm_up: WarmUp = 20,
    weight_decay: float = 0.1,
    seed: int = 0,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read.")
    ] = False,
    resume: Resume = False,
) -> None:
    """Train a patch head on pictures and write it, with its model, for serving."""
    cv2.setNumThreads(1)
    settings = Settings(
        epochs=epochs, batch=batch, lr=lr, warm_up=warm_up, seed=seed, weight_decay=weight_decay
    )
    recipe = Recipe(side, stride, split, augment, tower_lr)
    parts = parts_of(data, share=held_out, skip_bad=skip_bad)
    with processes.joined():
        begun = trained(start)
        torch.manual_seed(seed)
        task = ClipSelf(begun, parts, recipe, settings)
        told = {"data": str(data), "model": start, **asdict(recipe), **asdict(settings)}
        loop.start(Loop(task, out, settings, told), resume=resume)


if __name__ == "__main__":
    command.run(main)
