"""Write a run as a YOLO segmentation data set: outlines as labels, links to images, and names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image

from .. import exporters, images
from ..errors import BadImage
from ..exporters import records
from ..files.outputs import folded
from ..files.polygons import outlines
from . import names
from .done import Done, category
from .plan import Item

# Formats that YOLO trainers read, by suffix and first bytes; others are converted to PNG.
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_HEADS = (b"\xff\xd8", b"\x89PNG", b"BM", b"II*\0", b"MM\0*", b"RIFF")
BLOCK = 1 << 20  # distances between two outlines computed at a time
# characters that YAML forbids, or that some readers take as line breaks or byte order marks
_NOT_YAML = re.compile(
    "[^\t\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_INSET = 0.01  # px inside the pixels' edges, so that outlines rounded to pixels stay inside


def write(done: Done) -> list[Path]:
    """Write a YOLO segmentation data set: data.yaml, labels/, and images/ with links or PNGs.

    A label holds outlines along pixel edges, without holes; the parts of a mask are joined by a
    line there and back, as YOLO's own converters do.
    """
    categories = {name: number for number, name in enumerate(done.categories())}
    stems = _stems([item.name for item in done.items])
    for _, item, found in done.outcomes():
        stem = stems[item.name]
        height, width = found.record["size"]
        lines = []
        for row in found.record["rows"]:
            points = joined(outlines(records.decode_rle(row["rle"]), diagonal=True, inset=_INSET))
            if len(points):
                scaled = points / (width, height)
                kind = categories[category(row, item)]
                lines.append(f"{kind} " + " ".join(f"{value:.7f}" for value in scaled.ravel()))
        with done.output.writing(f"yolo/labels/{stem}.txt") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
        _link_or_convert(done, item, f"yolo/images/{stem}")
    table = (
        "# There are no splits yet: train and val are the same images, and a score on val "
        "says nothing of new ones.\n"
    )
    # without "path", which readers resolve against the working folder
    table += "train: images\nval: images\nnames:\n"
    table += "".join(f"  {number}: {quoted(name)}\n" for name, number in categories.items())
    with done.output.writing("yolo/data.yaml") as file:
        file.write(table.encode())
    return [done.out / "yolo" / "data.yaml"]


def _stems(listed: Sequence[str]) -> dict[str, str]:
    """Return a unique stem for each image; images that share a stem get their suffix appended.

    No folder is called images: readers derive the label's path by replacing the last "images" in
    an image's path by "labels".
    """
    wanted = {}
    for name in listed:
        path = PurePosixPath(name)
        folders = ("images_" if part == "images" else part for part in path.parts[:-1])
        wanted[name] = PurePosixPath(*folders, path.stem)
    count = Counter(folded(str(stem)) for stem in wanted.values())
    for name, stem in wanted.items():
        if count[folded(str(stem))] > 1:
            wanted[name] = stem.with_name(f"{stem.name}_{PurePosixPath(name).suffix[1:]}")
    return names.distinct({name: names.fitting(stem.as_posix()) for name, stem in wanted.items()})


def _link_or_convert(done: Done, item: Item, stem: str) -> None:
    """Write a link to an image, or a PNG (first frame, upright) if YOLO trainers cannot read it."""
    suffix = item.path.suffix
    try:
        with item.path.open("rb") as file:
            readable = file.read(4).startswith(_HEADS)
    except OSError as error:
        raise BadImage(
            f"{item.path}: cannot be opened any more, {error.strerror}; run again"
        ) from None
    if readable and suffix.lower() in _SUFFIXES:
        done.output.link(f"{stem}{suffix}", item.path.absolute())
        return
    image = images.load(item.path, max_pixels=10**12)
    with done.output.writing(f"{stem}.png") as file:
        file.write(exporters.encode(PIL.Image.fromarray(image.pixels), "PNG"))


def joined(parts: Sequence[np.ndarray], *, block: int = BLOCK) -> np.ndarray:
    """Join outlines into one, each spliced in at its point nearest to those already joined.

    parts: of (P, 2) points. block: distances computed at a time, which bounds the memory.
    """
    if not parts:
        return np.zeros((0, 2))
    whole = parts[0].astype(float)
    for part in parts[1:]:
        a, b = _nearest(whole, part, block)
        turned = np.roll(part, -b, axis=0).astype(float)
        whole = np.concatenate([whole[: a + 1], turned, turned[:1], whole[a:]])
    return whole


def _nearest(whole: np.ndarray, part: np.ndarray, block: int) -> tuple[int, int]:
    """Return the rows of the nearest two points of two outlines, first of ties; bounded memory."""
    step = max(1, block // len(part))
    best, found = np.inf, (0, 0)
    for start in range(0, len(whole), step):
        some = whole[start : start + step]
        distance = (some[:, None, 0] - part[None, :, 0]) ** 2 + (
            some[:, None, 1] - part[None, :, 1]
        ) ** 2
        row, column = divmod(int(distance.argmin()), len(part))
        if distance[row, column] < best:
            best, found = distance[row, column], (start + row, column)
    return found


def quoted(text: str) -> str:
    """Quote a text for YAML, on one line, with characters that every reader accepts."""
    quoted = json.dumps(names.spelt(text), ensure_ascii=False)
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
