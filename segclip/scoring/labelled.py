"""Labelled regions that ship, each with what surrounds it, to measure encoders on."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image

from ..errors import WeightsCorrupt, WeightsMissing
from ..files import atomic
from ..types import Array, Image, Masks
from ..weights.entries import weights_folder
from .crops import View, cut

FILE = "calibration.npz"
SIDE = 96  # px of a region with its surroundings
CONTEXT = 2.0  # side of the window that is kept, over the longer side of the region's box


class LabelledRegion(NamedTuple):
    """A row of ``LabelledRegions``."""

    name: str
    pixels: Array
    mask: Array
    quality: float = 1.0


@dataclass(frozen=True, eq=False)
class LabelledRegions:
    """Regions of photographs with what surrounds them.

    names: one for each of R regions, "" for a part of something or a piece of background. pixels:
    uint8 (R, SIDE, SIDE, 3). masks: bool (R, SIDE, SIDE). quality: float32 (R,), the proposer's
    confidence.
    """

    names: tuple[str, ...]
    pixels: Array
    masks: Array
    quality: Array

    @classmethod
    def join(cls, rows: Sequence[LabelledRegion]) -> LabelledRegions:
        """Make the table of rows."""
        return cls(
            tuple(row.name for row in rows),
            np.array([row.pixels for row in rows], np.uint8).reshape(-1, SIDE, SIDE, 3),
            np.array([row.mask for row in rows], bool).reshape(-1, SIDE, SIDE),
            np.array([row.quality for row in rows], np.float32),
        )

    @property
    def unnamed(self) -> list[LabelledRegion]:
        """Return the regions without a name."""
        columns = zip(self.names, self.pixels, self.masks, self.quality, strict=True)
        return [LabelledRegion(*row) for row in columns if not row[0]]

    def __getitem__(self, rows: Array) -> LabelledRegions:
        names = tuple(self.names[row] for row in rows)
        return LabelledRegions(names, self.pixels[rows], self.masks[rows], self.quality[rows])

    def save(self, path: Path) -> None:
        """Write the pixels as one lossy WebP image of tiles above each other in columns."""
        buffer, sheet = io.BytesIO(), io.BytesIO()
        PIL.Image.fromarray(self.tiled()).save(sheet, "webp", quality=82, method=6)
        np.savez_compressed(
            buffer,
            names=np.array(self.names),
            masks=np.packbits(self.masks),
            quality=self.quality.astype(np.float16),
            sheet=np.frombuffer(sheet.getvalue(), np.uint8),
        )
        atomic.write(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> LabelledRegions:
        """Read a file of ``save``. Raises WeightsMissing, and WeightsCorrupt for a damaged one."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                names = tuple(map(str, data["names"]))
                masks = np.unpackbits(data["masks"], count=len(names) * SIDE * SIDE)
                quality = data["quality"].astype(np.float32)
                with PIL.Image.open(io.BytesIO(data["sheet"].tobytes())) as sheet:
                    tiles = np.asarray(sheet.convert("RGB"))
        except FileNotFoundError as error:
            raise WeightsMissing(f"{path} is missing; install segclip again") from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise WeightsCorrupt(f"{path} is damaged; install segclip again") from error
        across = tiles.shape[1] // SIDE
        split = tiles.reshape(-1, SIDE, across, SIDE, 3).swapaxes(1, 2)  # (rows, across, S, S, 3)
        pixels = split.reshape(-1, SIDE, SIDE, 3)[: len(names)]
        return cls(names, pixels, masks.reshape(-1, SIDE, SIDE).astype(bool), quality)

    def tiled(self) -> Array:
        """Lay the regions out as one image: uint8 (SIDE * rows, SIDE * across, 3)."""
        across = _across(len(self.names))
        blank = np.zeros((-len(self.names) % across, SIDE, SIDE, 3), np.uint8)
        tiles = np.concatenate([self.pixels, blank]).reshape(-1, across, SIDE, SIDE, 3)
        return tiles.swapaxes(1, 2).reshape(-1, across * SIDE, 3)

    def windows(self) -> Masks:
        """Return the masks at their places in ``tiled``."""
        across = _across(len(self.names))
        size = (-(-len(self.names) // across) * SIDE, across * SIDE)
        placed = [
            (row % across * SIDE, row // across * SIDE, mask) for row, mask in enumerate(self.masks)
        ]
        return Masks.from_windows(placed, size)


def known_file() -> Path:
    """Return the path of the labelled regions that ship."""
    return weights_folder() / FILE


def window(image: Image, masks: Masks, row: int) -> tuple[Array, Array]:
    """Cut a region with its surroundings: uint8 (SIDE, SIDE, 3) and bool (SIDE, SIDE)."""
    one, white = masks[[row]], Image(np.full_like(image.pixels, 255), image.source)
    pixels = cut(image, one, View(CONTEXT, "keep"), SIDE)[0]
    mask: Array = cut(white, one, View(CONTEXT, "black"), SIDE)[0, :, :, 0] > 127
    return pixels, mask


def _across(count: int) -> int:
    """Return how many regions lie side by side: about as many as lie above each other."""
    return max(1, int(np.ceil(np.sqrt(count))))
