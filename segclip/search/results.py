"""Show and keep what was found: records, a contact sheet with the segments outlined, copies or links in a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from .. import images
from ..drawing import contact_sheet, spotlight
from ..errors import BadImage, BadPrompt
from ..exporters import records
from ..types import Image, Masks, Proposals, Regions, Result
from . import Index, Match

_TILE = 640  # px, about: the longer side of a picture on the sheet


def to_records(index: Index, matches: Sequence[Match]) -> list[dict[str, Any]]:
    """Describe what was found in plain JSON types; a region with its box xyxy half-open and its mask as COCO's RLE."""
    told = []
    for match in matches:
        record: dict[str, Any] = {
            "path": str(match.path),
            "similarity": records.digits(match.similarity),
            "probability": records.digits(match.probability),
            "size": list(match.size),
            "taken": match.taken.isoformat(),
        }
        if match.region is not None:
            rle = records.encode_rle(index.masks(match), 0)
            record |= {"region": match.region, "box": list(match.box or ()), "rle": rle}
        told.append(record)
    return told


def draw(index: Index, matches: Sequence[Match], *, columns: int = 3) -> PIL.Image.Image:
    """Lay out what was found, best first, each region in the light; pictures that have gone since are left out.

    The number is what they are ordered by: a region's probability, a whole image's similarity.
    """
    pictures, captions = [], []
    for match in matches:
        try:
            pictures.append(spotlight(_small(index, match)))
        except BadImage:
            continue
        score = match.similarity if match.region is None else match.probability
        captions.append(f"{score:.2f} {Path(match.name).name}")
    return contact_sheet(pictures, captions, columns=columns)


def gather(matches: Sequence[Match], folder: Path, *, link: bool = False) -> list[Path]:
    """Copy what was found to a folder, or link it there, names beginning with the rank: the files written.

    Raises BadPrompt when something of another search lies there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadPrompt(f"{folder} is not an empty folder; name a new one, or empty it")
    folder.mkdir(parents=True, exist_ok=True)
    width, written = len(str(len(matches))), []
    for rank, match in enumerate(matches, 1):
        target = folder / f"{rank:0{width}d} {Path(match.name).name}"
        if link:
            target.symlink_to(match.path.absolute())
        elif match.path.is_file():
            shutil.copy2(match.path, target)
        else:
            continue
        written.append(target)
    return written


def write_sheet(index: Index, matches: Sequence[Match], path: Path) -> Path:
    """Write ``draw`` to a .png or .jpg. Raises BadPrompt for another ending."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise BadPrompt(f"a sheet is written to a .png or .jpg file, got {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{os.getpid()}.{path.name}")
    draw(index, matches).save(aside)
    os.replace(aside, path)
    return path


def _small(index: Index, match: Match) -> Result:
    """Read what was found at about the size it is shown in."""
    image = images.load(match.path, max_pixels=10**12)
    if image.size != match.size:
        raise BadImage(f"{match.path}: it has changed since it was indexed")
    step = max(1, max(image.size) // _TILE)
    small = Image(np.ascontiguousarray(image.pixels[::step, ::step]), match.name)
    masks = index.masks(match)
    dense = masks.to_dense()[:, ::step, ::step]
    shown = Masks.from_dense(dense, small.size)
    regions = Regions(small, Proposals(shown, np.ones(len(shown))), np.zeros((len(shown), 0), np.float32))
    column = np.full(len(shown), match.probability, np.float32)
    return Result(regions, ("",) * len(shown), column, column, (), 0.0)
