"""Feed images and texts to training: read once, cached small, cropped anew, prefetched in threads.

Random draws depend only on the seed, the epoch and the item, not on the order or the threads.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from segclip.errors import BadImage, BadPrompt
from segclip.files import lines
from segclip.scoring.crops import CropPolicy, cut
from segclip.types import Array

from ..captions.neighbours import Neighbours
from ..captions.tables import CaptionItem
from . import processes
from .augment import AUGMENTS, Augment, augmented
from .losses import Keys

ROOM = 1.25  # shorter side of a cached image over the network's input side: margin for random crops
MEMORY = 2_000_000_000  # bytes of cached images; the others are read again each epoch
AHEAD = 3  # batches
_Made = TypeVar("_Made")
_SIDED = re.compile(r"\b(left|right|leftmost|rightmost|clockwise)\b", re.IGNORECASE)


class ImageLoader:
    """Items' pixels with a margin around the network's input.

    uint8 (h, w, 3), the shorter side fixed.
    """

    def __init__(self, items: Sequence[CaptionItem], size: int, policy: CropPolicy) -> None:
        self.items, self.side, self.policy = items, round(size * ROOM), policy
        self._kept: dict[int, Array] = {}
        self._bytes = 0

    def __getitem__(self, row: int) -> Array:
        if row in self._kept:
            return self._kept[row]
        pixels = self._read(self.items[row])
        if self._bytes + pixels.nbytes <= MEMORY:
            self._kept[row] = pixels
            self._bytes += pixels.nbytes
        return pixels

    def _read(self, item: CaptionItem) -> Array:
        image = item.load()
        if item.region is not None:
            return cut(image, item.region, self.policy.views[0], self.side)[0]
        height, width = image.size
        scale = self.side / min(height, width)
        if scale >= 1:
            return image.pixels
        size = max(self.side, round(width * scale)), max(self.side, round(height * scale))
        return cv2.resize(image.pixels, size, interpolation=cv2.INTER_AREA)


def captions_of(items: Sequence[CaptionItem]) -> list[str]:
    """List all captions of items."""
    return [caption for item in items for caption in item.captions]


class CaptionTexts:
    """Tokens of every distinct caption; a caption is referred to by its row."""

    def __init__(self, captions: Iterable[str], tokenizer: Any, templates: Sequence[str]) -> None:
        self.texts = list(dict.fromkeys(captions))
        self.number = {text: row for row, text in enumerate(self.texts)}
        sentences = [template.replace("{}", text) for text in self.texts for template in templates]
        rows = [
            tokenizer(sentences[start : start + 4096]) for start in range(0, len(sentences), 4096)
        ]
        self.tokens = torch.cat(rows).view(len(self.texts), len(templates), -1)  # (T, K, L)

    def of(self, item: CaptionItem) -> Array:
        """Return the rows of an item's captions."""
        return np.array([self.number[caption] for caption in item.captions])


@dataclass(frozen=True, eq=False)
class CaptionBatch:
    """One process's part of a batch.

    pixels: uint8 (I, S, S, 3). tokens: (T, L). keys: pair the images and the texts.
    """

    pixels: torch.Tensor
    tokens: torch.Tensor
    keys: Keys
    items: tuple[CaptionItem, ...]

    @property
    def count(self) -> int:
        """Return the number of images."""
        return len(self.items)

    def names(self) -> list[str]:
        """Return the images' names."""
        return [str(item.image) for item in self.items]


@dataclass(frozen=True)
class FeedOptions:
    """How batches are made. captions: per image in a batch. threads: 0 for one per core."""

    batch: int
    size: int
    augment: Augment = AUGMENTS["light"]
    captions: int = 1
    seed: int = 0
    threads: int = 0


class Feed:
    """Make the batches of each epoch; an incomplete last batch is dropped."""

    def __init__(
        self,
        items: Sequence[CaptionItem],
        texts: CaptionTexts,
        options: FeedOptions,
        policy: CropPolicy,
    ) -> None:
        self.items, self.texts, self.options = items, texts, options
        self.neighbours: Neighbours | None = None
        if options.batch > len(items):
            raise BadPrompt(
                f"a batch of {options.batch} is larger than the {len(items)} images trained on; "
                "lower --batch"
            )
        if options.batch % processes.world():
            raise BadPrompt(
                f"--batch {options.batch} is not a multiple of the {processes.world()} processes"
            )
        self.images = ImageLoader(items, options.size, policy)
        self.flips = [
            item.region is None and not any(_SIDED.search(c) for c in item.captions)
            for item in items
        ]

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.items) // self.options.batch

    def epoch(self, epoch: int, first: int) -> Iterator[CaptionBatch]:
        """Yield this process's part of an epoch's batches from the ``first`` on."""
        size = self.options.batch
        rng = np.random.default_rng([self.options.seed, epoch])
        order = self.neighbours.order(rng) if self.neighbours else rng.permutation(len(self.items))
        share = processes.mine(size // processes.world())
        parts = (order[at * size : (at + 1) * size][share] for at in range(first, len(self)))
        return ahead((partial(self._batch, part, epoch) for part in parts), self.options.threads)

    def _batch(self, rows: Array, epoch: int) -> CaptionBatch:
        options = self.options
        pixels = np.empty((len(rows), options.size, options.size, 3), np.uint8)
        owners, captions, tokens = [], [], []
        for place, row in enumerate(rows):
            rng = np.random.default_rng([options.seed, epoch, int(row)])
            flip = self.flips[row]
            pixels[place] = augmented(
                rng, self.images[row], options.size, options.augment, flip=flip
            )
            numbers = self.texts.of(self.items[row])
            drawn = rng.choice(numbers, min(options.captions, len(numbers)), replace=False)
            drawn = np.resize(drawn, options.captions)  # repeats captions where there are too few
            forms = rng.integers(self.texts.tokens.shape[1], size=len(drawn))
            tokens.append(self.texts.tokens[drawn, forms])
            owners += [int(row)] * len(drawn)
            captions += drawn.tolist()
        keys = Keys(
            torch.from_numpy(rows.astype(np.int64)), torch.tensor(owners), torch.tensor(captions)
        )
        return CaptionBatch(
            torch.from_numpy(pixels),
            torch.cat(tokens),
            keys,
            tuple(self.items[row] for row in rows),
        )


def ahead(jobs: Iterable[Callable[[], _Made]], threads: int = 0) -> Iterator[_Made]:
    """Run jobs in threads, a few ahead of the consumer; yield their results in order.

    threads: 0 for one per core.
    """
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        waiting: deque[Future[_Made]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(job))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def check(items: Sequence[CaptionItem], *, skip_bad: bool) -> list[CaptionItem]:
    """Return the items that can be trained on.

    Missing images and invalid captions raise BadPrompt, or are left out with ``skip_bad``.
    """
    good = [item for item in items if not _fault(item)]
    if len(good) < len(items) and not skip_bad:
        faults = [fault for item in items if (fault := _fault(item))]
        raise BadPrompt(
            f"{len(faults)} of {len(items)} items cannot be trained on, among them {faults[0]}; "
            "--skip-bad leaves them out"
        )
    if not good:
        raise BadPrompt("no image with a caption is left")
    return good


def _fault(item: CaptionItem) -> str:
    if not item.captions or not all(item.captions):
        return f"{item.image} with an empty caption"
    if problem := next(
        (problem for caption in item.captions if (problem := lines.fault(caption))), ""
    ):
        return f"{item.image} with an invalid caption: {problem}"
    if not isinstance(item.image, Path) or item.image.is_file():
        return ""
    return f"{item.image}, which is {'no regular file' if item.image.exists() else 'missing'}"


def spread(items: Sequence[CaptionItem], most: int) -> list[CaptionItem]:
    """Return at most ``most`` items, evenly spaced."""
    rows = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[row] for row in rows]


def readable(items: Sequence[CaptionItem]) -> tuple[list[CaptionItem], list[str]]:
    """Open every image: the items that can be read, and why the others cannot."""
    good, bad = [], []
    for item in items:
        try:
            # a pipe would block
            if isinstance(item.image, Path) and not item.image.is_file():
                raise BadImage(f"{item.image}: no such file, or not a regular file")
            item.load()
            good.append(item)
        except BadImage as error:
            bad.append(str(error))
    return good, bad
