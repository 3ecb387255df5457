"""Output search results: records, a contact sheet, and copies or links in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from PIL.PngImagePlugin import PngInfo

from .. import images
from ..drawing import contact_sheet, shrink, spotlight
from ..errors import BadImage, BadPrompt, NotWritable
from ..exporters import records
from ..files import atomic
from ..types import Proposals, Regions, Result
from . import Index, Match

_MARK = "segclip search sheet"  # metadata that distinguishes a sheet from a user's image
_TILE = 640  # px, about: the longer side of an image on the sheet


def to_records(index: Index, matches: Sequence[Match]) -> list[dict[str, Any]]:
    """Convert matches to JSON types; regions with a half-open xyxy box and a mask as COCO RLE."""
    rows = []
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
        rows.append(record)
    return rows


def draw(index: Index, matches: Sequence[Match], *, columns: int = 3) -> PIL.Image.Image:
    """Draw a contact sheet of the matches, best first, each with its region highlighted.

    The number is a region's probability or a whole image's similarity. Images deleted or changed
    since indexing are left out.
    """
    tiles, captions = [], []
    for match in matches:
        try:
            tiles.append(spotlight(_small(index, match)))
        except BadImage:
            continue
        score = match.similarity if match.region is None else match.probability
        captions.append(f"{score:.2f} {Path(match.name).name}")
    return contact_sheet(tiles, captions, columns=columns)


def gather(matches: Sequence[Match], folder: Path, *, link: bool = False) -> list[Path]:
    """Copy or link the matches to a folder, prefixing names with the rank; return the files.

    Raises BadPrompt if the folder is not empty, and NotWritable.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadPrompt(f"{folder} is not an empty folder; name a new one, or empty it")
    width, written = len(str(len(matches))), []
    with atomic.writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for rank, match in enumerate(matches, 1):
            target = folder / f"{rank:0{width}d} {Path(match.name).name}"
            if link:
                target.symlink_to(match.path.absolute())
            elif match.path.is_file():
                with match.path.open("rb") as source, atomic.replacing(target) as file:
                    shutil.copyfileobj(source, file)
                shutil.copystat(match.path, target)
            else:
                continue
            written.append(target)
    return written


def write_sheet(index: Index, matches: Sequence[Match], path: Path) -> Path:
    """Write ``draw`` to a .png or .jpg file, replacing only a former sheet.

    Raises BadPrompt for another suffix, and NotWritable for any other existing file: it may be an
    image of the user's, even an indexed one.
    """
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise BadPrompt(f"a sheet is written to a .png or .jpg file, got {path}")
    if (path.exists() or path.is_symlink()) and not _is_sheet(path):
        raise NotWritable(
            f"{path} is there already and no sheet of a search; name another file with --sheet"
        )
    sheet, info = draw(index, matches), PngInfo()
    info.add_text("Software", _MARK)
    with atomic.replacing(path) as file:
        if path.suffix.lower() == ".png":
            sheet.save(file, "PNG", pnginfo=info)
        else:
            sheet.save(file, "JPEG", comment=_MARK.encode())
    return path


def _is_sheet(path: Path) -> bool:
    """Return whether ``write_sheet`` wrote a file, by the mark near its beginning."""
    try:
        if not path.is_file() or path.is_symlink():
            return False
        with path.open("rb") as file:
            return _MARK.encode() in file.read(1024)
    except OSError:
        return False


def _small(index: Index, match: Match) -> Result:
    """Load a match at about the size of its tile."""
    image = images.load(match.path, max_pixels=10**12)
    if image.size != match.size:
        raise BadImage(f"{match.path} has changed since it was indexed")
    small, masks = shrink(replace(image, source=match.name), index.masks(match), _TILE)
    regions = Regions.bare(small, Proposals(masks, np.ones(len(masks))))
    return Result.unranked(regions, match.probability)
