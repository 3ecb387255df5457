"""Read labelled regions of one's own, to calibrate an encoder on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .. import images
from ..errors import BadPrompt
from ..files import listing
from ..scoring.labelled import LabelledRegion, LabelledRegions, known_file, window
from ..types import Masks
from .datasets import TABLES, OnProgress, read_folder, reporting, silent
from .zeroshot import class_folders, label_of

EACH = 8  # regions of a name
MOST = 600  # regions with a name
LEAST_NAMES = 3  # or a name has nothing to be told from


def read_labelled(folder: Path, report: OnProgress = silent) -> LabelledRegions:
    """Read regions of a COCO folder, or whole images of a tree of class folders.

    At most ``EACH`` of a name and ``MOST`` in all. Regions without a name, parts of things and
    pieces of background, are those that ship; all have the same quality. Raises BadPrompt for fewer
    than ``LEAST_NAMES`` names, BadTable and BadImage.
    """
    is_table = any((folder / name).is_file() for name in TABLES)
    rows = list(_of_table(folder, report) if is_table else _of_classes(folder, report))
    names = {row.name for row in rows}
    if len(names) < LEAST_NAMES:
        raise BadPrompt(
            f"{folder} has regions of {len(names)} names; calibrating takes {LEAST_NAMES} or more"
        )
    shipped = LabelledRegions.read(known_file()).unnamed
    return LabelledRegions.join([*rows, *(row._replace(quality=1.0) for row in shipped)])


def _of_table(folder: Path, report: OnProgress) -> Iterator[LabelledRegion]:
    samples = read_folder(folder)
    counts: dict[str, int] = {}
    for sample in reporting(samples, report):
        chosen = []
        for row in sample.named:
            name = sample.names[row]
            if counts.get(name, 0) < EACH and sum(counts.values()) < MOST:
                counts[name] = counts.get(name, 0) + 1
                chosen.append(int(row))
        if chosen:
            image = sample.load()
            for row in chosen:
                yield LabelledRegion(sample.names[row], *window(image, sample.masks, row))


def _of_classes(folder: Path, report: OnProgress) -> Iterator[LabelledRegion]:
    files = [
        (label_of(path), file)
        for path in class_folders(folder)
        for file in listing.walk(path)[:EACH]
    ]
    for name, file in reporting(files[:: max(1, len(files) // MOST)], report):
        image = images.load(file)
        whole = Masks.from_windows([(0, 0, np.ones(image.size, bool))], image.size)
        yield LabelledRegion(name, *window(image, whole, 0))
