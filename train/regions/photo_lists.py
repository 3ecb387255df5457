"""List the photos of data sets with their labels or captions: the training part or the rest."""

from __future__ import annotations

import csv
from pathlib import Path

from ..scenes.photos import is_held_out


def caltech_files(folder: Path, *, held_out: bool) -> list[tuple[Path, int]]:
    """List the photos of a tree of class folders.

    held_out: every fifth of each class, else the others.
    """
    files = []
    for label, kind in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for row, file in enumerate(sorted(kind.glob("*.jpg"))):
            if is_held_out(row) == held_out:
                files.append((file, label))
    return files


def imagenet_files(folder: Path, *, held_out: bool) -> list[tuple[Path, int]]:
    """List photos of ImageNet's classes.

    held_out: the odd lines of names.csv, else the even ones.
    """
    rows = list(csv.DictReader((folder / "names.csv").read_text("utf-8").splitlines()))
    order = {number: label for label, number in enumerate(sorted(row["wnid"] for row in rows))}
    return [
        (folder / row["image"], order[row["wnid"]])
        for line, row in enumerate(rows, 1)
        if (line % 2 == 1) == held_out
    ]


def captions(folder: Path, *, held_out: bool) -> list[tuple[Path, str]]:
    """Read photos with a caption, laid out as Flickr8k is.

    held_out: every fifth, else the others.
    """
    rows = list(csv.DictReader((folder / "captions.txt").read_text("utf-8").splitlines()))
    kept = [row for k, row in enumerate(rows) if is_held_out(k) == held_out]
    return [(folder / "Images" / row["image"], row["caption"].strip(" .").lower()) for row in kept]
