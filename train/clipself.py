"""Distil a CLIP's crop embeddings into its patches, without labels: CLIPSelf (Wu et al. 2024).

    python -m train.clipself my-photos --start mini-clip --side 160 --stride 8 --out runs/self
    segclip segment desk.jpg "a red apple" --encoder file:runs/self

An image is divided into a random grid of m x n boxes. The teacher, the unchanged CLIP, embeds each
box's crop, which the mean of the student's patches inside the box is to match: the loss is 1 -
cosine. Crops are cut as in serving, from DETAIL times the student's resolution.
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

from segclip.encoders import checkpoints, patches
from segclip.errors import BadPrompt, UnknownName
from segclip.files import listing
from segclip.scoring.crops import cut
from segclip.types import Array, Image, Masks

from .captions import tables
from .captions.tables import CaptionItem
from .engine import command, limits, loop, processes
from .engine.augment import AUGMENTS, Augment, augmented
from .engine.feed import ImageLoader, ahead, readable, spread
from .engine.heads import with_head
from .engine.judge import in_chunks
from .engine.loop import Loop, LoopSettings, Validation
from .engine.options import HeldOutShare, Out, Resume, Side, Stride, WarmUp
from .engine.start import Start, trained

DETAIL = 2
VALIDATED = 500  # held-out images evaluated each epoch


@dataclass(frozen=True)
class ClipSelfRecipe:
    """Settings besides the loop's.

    side: px of the student's images, 0 for the model's own. stride: px from patch to patch, 0 for
    the tower's own. split: maximum number of boxes along a side. tower: learning rate of the image
    tower relative to the head's, 0 to freeze it.
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
class RandomBoxes:
    """One process's part of a batch.

    pixels: uint8 (B, S, S, 3). crops: of the boxes, uint8 (B * m * n, C, C, 3), by rows of the
    grid. grid: (m, n).
    """

    pixels: torch.Tensor
    crops: torch.Tensor
    grid: tuple[int, int]
    items: tuple[CaptionItem, ...]

    @property
    def count(self) -> int:
        """Return the number of images."""
        return len(self.items)

    def names(self) -> list[str]:
        """Return the images' names."""
        return [str(item.image) for item in self.items]


def pool(cells: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Average patches (B, h, w, D) over each box of a grid (m, n), by area: unit (B, m * n, D)."""
    down, across = (_shares(*sides).to(cells) for sides in zip(grid, cells.shape[1:3], strict=True))
    return F.normalize(torch.einsum("mh,bhwd,nw->bmnd", down, cells, across), dim=-1).flatten(1, 2)


def _shares(boxes: int, cells: int) -> torch.Tensor:
    """Return the share (boxes, cells) of each box along a side that each patch covers."""
    box, cell = torch.linspace(0, 1, boxes + 1)[:, None], torch.linspace(0, 1, cells + 1)
    shared = (torch.minimum(box[1:], cell[1:]) - torch.maximum(box[:-1], cell[:-1])).clamp(min=0)
    return shared / shared.sum(dim=1, keepdim=True)


def grid_boxes(size: int, grid: tuple[int, int]) -> Masks:
    """Divide a square image of ``size`` px into a grid (m, n) of boxes, row by row."""
    rows, columns = (np.linspace(0, size, parts + 1).round().astype(int) for parts in grid)
    windows = [
        (int(left), int(top), np.ones((bottom - top, right - left), bool))
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]
    return Masks.from_windows(windows, (size, size))


class ClipSelf:
    """Train a patch head, and optionally the tower, to embed boxes as the model embeds crops."""

    monitor = "cosine"

    def __init__(
        self,
        start: Start,
        parts: tuple[Sequence[CaptionItem], Sequence[CaptionItem]],
        recipe: ClipSelfRecipe,
        settings: LoopSettings,
    ) -> None:
        if settings.batch > len(parts[0]):
            raise BadPrompt(
                f"a batch of {settings.batch} is larger than the {len(parts[0])} images; lower "
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
        self.images = ImageLoader(self.items, self.size * DETAIL, start.checkpoint.serving.policy)
        self.held_out = [
            self._held_out(item, row) for row, item in enumerate(spread(parts[1], VALIDATED))
        ]

    def groups(self) -> list[dict[str, Any]]:
        """Train the head, and the tower at its own rate."""
        rates = {"head": 1.0, "tower": self.recipe.tower}
        return [
            {"params": list(self.network[part].parameters()), "lr": self.settings.lr * rate}
            for part, rate in rates.items()
            if rate
        ]

    def steps(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.items) // self.settings.batch

    def batches(self, epoch: int, first: int) -> Iterator[RandomBoxes]:
        """Yield this process's part of an epoch's batches from the ``first`` on."""
        self.network["tower"].eval()  # batch norms keep the teacher's statistics
        size = self.settings.batch
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self.items))
        share = processes.mine(size // processes.world())
        jobs = (
            partial(self._batch, order[at * size : (at + 1) * size][share], epoch, at)
            for at in range(first, self.steps())
        )
        return ahead(jobs)

    def _batch(self, rows: Array, epoch: int, at: int) -> RandomBoxes:
        grid = self._grid(epoch, at)
        augment = AUGMENTS[self.recipe.augment]
        samples = [
            self._part(
                np.random.default_rng([self.settings.seed, epoch, 0, int(row)]),
                self.images[row],
                augment,
                grid,
            )
            for row in rows
        ]
        pixels, crops = (
            torch.from_numpy(np.concatenate(part)) for part in zip(*samples, strict=True)
        )
        return RandomBoxes(pixels, crops, grid, tuple(self.items[row] for row in rows))

    def _grid(self, *place: int) -> tuple[int, int]:
        rng = np.random.default_rng([self.settings.seed, *place])
        down, across = rng.integers(1, self.recipe.split + 1, 2)
        return int(down), int(across)

    def _part(
        self, rng: np.random.Generator, pixels: Array, augment: Augment, grid: tuple[int, int]
    ) -> tuple[Array, Array]:
        """Return the student's image uint8 (1, S, S, 3) and the teacher's (m * n, C, C, 3)."""
        large = augmented(rng, pixels, self.size * DETAIL, augment, flip=True)
        crops = cut(Image(large), grid_boxes(len(large), grid), self.view, self.crop)
        return cv2.resize(large, (self.size, self.size), interpolation=cv2.INTER_AREA)[None], crops

    def _held_out(
        self, item: CaptionItem, row: int
    ) -> tuple[torch.Tensor, tuple[int, int], torch.Tensor]:
        """Prepare a held-out image: pixels, a grid, and the teacher's embeddings (1, m * n, D)."""
        grid = self._grid(0, row)
        whole = ImageLoader([item], self.size * DETAIL, self.start.checkpoint.serving.policy)[0]
        pixels, crops = self._part(np.random.default_rng(row), whole, AUGMENTS["none"], grid)
        targets = torch.from_numpy(in_chunks(self._teach, torch.from_numpy(crops)))
        return torch.from_numpy(pixels), grid, targets[None]

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        scaled = (pixels.to(self.device, torch.float32) / 255 - self.mean) / self.std
        return scaled.permute(0, 3, 1, 2)

    def _teach(self, crops: torch.Tensor) -> torch.Tensor:
        """Embed crops uint8 (N, C, C, 3) with the teacher: unit (N, D)."""
        with torch.no_grad():
            return F.normalize(self.teacher.encode_image(self._normalised(crops)), dim=-1)

    def embed_boxes(self, pixels: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Embed the boxes of images uint8 (B, S, S, 3) by their patches: unit (B, m * n, D)."""
        return pool(
            self.network["head"](patches.encode(self.network["tower"], self._normalised(pixels))),
            grid,
        )

    def backward(self, batch: RandomBoxes) -> torch.Tensor:
        """Backpropagate a batch and return its loss."""
        targets = self._teach(batch.crops).unflatten(0, (batch.count, -1))
        loss = (1 - (self.embed_boxes(batch.pixels, batch.grid) * targets).sum(dim=-1)).mean()
        loss.backward()
        return loss.detach()

    def validate(self) -> Validation:
        """Compare the held-out images' boxes with their crops: the mean cosine."""
        with torch.no_grad():
            found = [
                (self.embed_boxes(pixels, grid).cpu() * targets).sum(dim=-1).mean()
                for pixels, grid, targets in self.held_out
            ]
        return Validation({"cosine": float(torch.stack(found).mean())})

    def save(self, folder: Path) -> None:
        """Write the model with the student's tower and head, for serving by dense features."""
        model = copy.deepcopy(self.teacher)
        model.visual.load_state_dict(self.network["tower"].state_dict())
        model.patch_head = self.network["head"]
        self.start.save(model, folder)


def parts_of(
    folder: Path, *, share: float, skip_bad: bool
) -> tuple[list[CaptionItem], list[CaptionItem]]:
    """List a folder's images and split them; raises BadImage if there is no folder."""
    items = [CaptionItem(path, (), str(path.relative_to(folder))) for path in listing.walk(folder)]
    return tables.split(readable(items)[0] if skip_bad else items, share)


def main(
    data: Annotated[Path, typer.Argument(help="A folder of any images.")],
    start: Annotated[str, typer.Option(help="The CLIP to distil: mini-clip, file:RUN, MODEL/TAG.")],
    out: Out,
    side: Side = 0,
    stride: Stride = 0,
    split: Annotated[
        int, typer.Option(help="Maximum number of boxes along a side of an image.")
    ] = 6,
    tower_lr: Annotated[
        float,
        typer.Option(help="Image tower's learning rate, relative to the head's; 0 freezes it."),
    ] = 0,
    augment: Annotated[str, typer.Option(help=f"{', '.join(AUGMENTS)}.")] = "light",
    held_out: HeldOutShare = 0.1,
    epochs: int = 6,
    batch: int = 16,
    lr: float = 5e-4,
    warm_up: WarmUp = 20,
    weight_decay: float = 0.1,
    seed: int = 0,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip images that cannot be read.")
    ] = False,
    resume: Resume = False,
) -> None:
    """Train a patch head on images and write it, with its model, for serving."""
    cv2.setNumThreads(1)
    settings = LoopSettings(
        epochs=epochs, batch=batch, lr=lr, warm_up=warm_up, seed=seed, weight_decay=weight_decay
    )
    recipe = ClipSelfRecipe(side, stride, split, augment, tower_lr)
    parts = parts_of(data, share=held_out, skip_bad=skip_bad)
    with processes.joined():
        begun = trained(start)
        torch.manual_seed(seed)
        task = ClipSelf(begun, parts, recipe, settings)
        record = {"data": str(data), "model": start, **asdict(recipe), **asdict(settings)}
        loop.start(Loop(task, out, settings, record), resume=resume)


if __name__ == "__main__":
    command.run(main)
