"""Read labelled images in COCO format, including the scenes of `train.scenes.compose`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np

from .. import images
from ..errors import BadPrompt, BadTable
from ..files import coco
from ..types import Image, Masks

TABLES = ("scenes.json", "instances.json")
MIN_ACROSS = 32  # px; minimum longer side of a queried object, unless the file sets "askable"
ABSENT = 3  # absent names queried per image, unless the file lists them
RIGHT = 0.5  # minimum IoU at which a mask counts as the named object

T = TypeVar("T")
OnProgress: TypeAlias = Callable[[int, int], None]  # takes (images done, total) after each image


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled image.

    names: one for each of the N masks. askable: bool (N,), large and visible enough to be queried.
    absent: names of things that are not in the image. crowd: bool (N,), a group annotated as one
    mask, ignored in the figures.
    """

    path: Path
    masks: Masks
    names: tuple[str, ...]
    askable: np.ndarray
    absent: tuple[str, ...]
    crowd: np.ndarray

    @property
    def named(self) -> np.ndarray:
        """The rows of single objects that can be queried by name: int64 (K,)."""
        return np.flatnonzero(self.askable & ~self.crowd)

    def rows_of(self, name: str) -> list[int]:
        """Return the rows of all objects of a name, also of those that cannot be queried."""
        return [row for row, other in enumerate(self.names) if other == name]

    def iou(self, mask: Masks, name: str) -> float:
        """Return the IoU of one mask with the best-matching object of a name; 0 for none."""
        return float(mask.iou(self.masks[self.rows_of(name)]).max(initial=0))

    def load(self) -> Image:
        """Read the image. Raises BadImage, and BadTable when its size is not that of its masks."""
        return load_listed(self.path, self.masks.size)


def load_listed(path: Path, size: tuple[int, int]) -> Image:
    """Read an image that a table lists with a size, (H, W).

    Raises BadImage, and BadTable when the image has another size.
    """
    image = images.load(path)
    if image.size != size:
        height, width = image.size
        raise BadTable(
            f"{path} is {height} x {width} pixels high and wide, its table says "
            f"{size[0]} x {size[1]}; label the image as it is"
        )
    return image


def silent(done: int, total: int) -> None:
    """Report no progress."""


def reporting(items: Sequence[T], report: OnProgress) -> Iterator[T]:
    """Yield the items, and report each once the caller is done with it."""
    for done, item in enumerate(items, 1):
        yield item
        report(done, len(items))


def read_folder(folder: Path) -> list[Sample]:
    """Read a folder of images/ and scenes.json or instances.json, sorted by file name.

    Raises BadPrompt when it holds neither table, and BadTable when the table is malformed.
    """
    file = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if file is None:
        raise BadPrompt(
            f"{folder} holds neither {' nor '.join(TABLES)}; give a folder of images/ and one of "
            "them"
        )
    return samples_of(coco.read(file), folder / "images")


def samples_of(table: coco.Instances, folder: Path) -> list[Sample]:
    """Return the samples of a table whose images lie in ``folder``. Raises BadTable."""
    return [_sample(table, image, folder) for image in table.images]


def _sample(table: coco.Instances, image: coco.ImageRow, folder: Path) -> Sample:
    things = table.things[image.key]
    names = tuple(table.categories[thing.category].name for thing in things)
    askable = [_is_askable(thing) for thing in things]
    absent = image.absent
    if absent is None:
        every = {category.name for category in table.categories.values()}
        absent = _absent(image.key, sorted(every - set(names)))
    crowd = np.array([thing.crowd for thing in things], bool)
    return Sample(
        folder / image.name, table.masks(image), names, np.array(askable, bool), absent, crowd
    )


def _is_askable(thing: coco.Thing) -> bool:
    if thing.askable is not None:
        return thing.askable
    return max(thing.box[2:]) >= MIN_ACROSS and not thing.crowd


def _absent(key: coco.Key, names: Sequence[str]) -> tuple[str, ...]:
    seed = key
    if isinstance(seed, str) or seed < 0:
        seed = int.from_bytes(sha256(str(key).encode("utf-8", "replace")).digest()[:8], "big")
    chosen = np.random.default_rng(seed).choice(len(names), min(ABSENT, len(names)), replace=False)
    return tuple(names[index] for index in chosen)
