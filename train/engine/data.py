"""Check a data set of images and captions before training, or explain how to get a known one.

# counts, duplicates, broken images, captions, leaks
python -m train.engine.data ../shared/coco-dev
# how to get it; verifies it in a folder that has it
python -m train.engine.data flickr8k
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import numpy as np
import open_clip
import typer

from ..captions import tables
from ..captions.tables import CaptionItem, Member
from . import command, limits
from .feed import readable
from .options import HeldOutShare


@dataclass(frozen=True)
class Known:
    """A public data set and how to get it.

    files: at least one file of each row must exist.
    """

    images: int
    captions: int
    files: tuple[tuple[str, ...], ...]
    how: str


KNOWN = {
    "flickr8k": Known(
        8091,
        40455,
        (
            ("captions.txt", "dataset_flickr8k.json", "Flickr8k.token.txt"),
            ("Images", "Flicker8k_Dataset"),
        ),
        "Request it at https://hockenmaier.cs.illinois.edu/8k-pictures.html, or download "
        "adityajn105/flickr8k from kaggle.com (captions.txt and Images/). The usual split is in "
        "Karpathy's dataset_flickr8k.json, "
        "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip; "
        "put it in the same folder.",
    ),
    "flickr30k": Known(
        31783,
        158915,
        (("results.csv", "dataset_flickr30k.json", "captions.txt"), ("flickr30k_images", "images")),
        "Request it at https://shannon.cs.illinois.edu/DenotationGraph/, or download "
        "hsankesara/flickr-image-dataset from kaggle.com (results.csv and flickr30k_images/). "
        "The usual split is in Karpathy's dataset_flickr30k.json.",
    ),
    "coco": Known(
        123287,
        616767,
        (("dataset_coco.json", "captions.json"), ("images", "train2014", "train2017")),
        "Download train2014, val2014 and annotations_trainval2014 from "
        "http://images.cocodataset.org. The usual split is in Karpathy's dataset_coco.json, "
        "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip. Images belong "
        "in FOLDER/train2014 and FOLDER/val2014.",
    ),
}


@dataclass(frozen=True)
class DataReport:
    """Result of a check. rows: name and value. faults: problems to fix."""

    rows: tuple[tuple[str, str], ...]
    faults: tuple[str, ...]


def inspect(
    items: Sequence[CaptionItem], *, context: int = 77, share: float = 0.1, deep: bool = True
) -> DataReport:
    """Count images and captions, and find faults.

    context: tokens a text may have. deep: open every image.
    """
    captions = [caption for item in items for caption in item.captions]
    words = np.array([len(caption.split()) for caption in captions] or [0])
    tokenizer = open_clip.SimpleTokenizer(context_length=context)
    cut = sum(len(tokenizer.encode(caption)) > context - 2 for caption in set(captions))
    repeats = Counter(" ".join(caption.lower().split()) for caption in captions)
    groups = len({item.group for item in items})
    rows = [("images", str(groups))]
    rows += [("regions", str(len(items)))] if any(item.region is not None for item in items) else []
    rows += [
        ("captions", str(len(captions))),
        ("captions per image", f"{len(captions) / max(groups, 1):.2f}"),
        ("words per caption, median and maximum", f"{np.median(words):.0f}, {words.max()}"),
        (f"captions truncated to {context} tokens", str(cut)),
        ("captions that occur more than once", str(sum(count > 1 for count in repeats.values()))),
    ]
    faults = (
        [f"{sum(not caption for caption in captions)} captions are empty"]
        if not all(captions)
        else []
    )
    if deep:
        items, broken = readable(items)
        rows.append(("images that cannot be read", str(len(broken))))
        faults += broken[:10]
    faults += _copies(items, rows, share)
    return DataReport(tuple(rows), tuple(faults))


def _copies(items: Sequence[CaptionItem], rows: list[tuple[str, str]], share: float) -> list[str]:
    """Find identical files, and those on both sides of the split."""
    if not items:
        return ["no image can be read"]
    trained, validation = tables.split(items, share)
    rows += [
        ("training images", str(len({item.group for item in trained}))),
        ("validation images", str(len({item.group for item in validation}))),
    ]
    sides: dict[str, set[str]] = {}
    names: dict[str, set[str]] = {}
    for side, part in (("train", trained), ("held out", validation)):
        for item in {item.group: item for item in part}.values():
            digest = sha256(_bytes(item)).hexdigest()
            sides.setdefault(digest, set()).add(side)
            names.setdefault(digest, set()).add(item.group)
    copies = [sorted(group) for group in names.values() if len(group) > 1]
    leaks = [sorted(names[digest]) for digest, both in sides.items() if len(both) > 1]
    rows += [
        ("groups of identical images", str(len(copies))),
        ("images on both sides of the split", str(len(leaks))),
    ]
    return [
        f"{' and '.join(leak)} are identical, on both sides of the split" for leak in leaks[:10]
    ]


def _bytes(item: CaptionItem) -> bytes:
    return item.image.read() if isinstance(item.image, Member) else item.image.read_bytes()


def verify(name: str, folder: Path) -> list[str]:
    """List what is missing from a known data set; empty if it is complete."""
    known = KNOWN[name]
    absent = [
        " or ".join(row) for row in known.files if not any((folder / file).exists() for file in row)
    ]
    if absent:
        return [f"{folder} lacks {file}" for file in absent]
    items = tables.read(folder)
    faults = []
    if len(items) != known.images:
        faults.append(f"{len(items)} images listed, {known.images} expected")
    captions = sum(len(item.captions) for item in items)
    if captions < known.captions:
        faults.append(f"{captions} captions, {known.captions} expected")
    gone = [str(item.image) for item in items if not Path(str(item.image)).exists()]
    return [*faults, *(f"{len(gone)} images are missing, such as {gone[0]}" for _ in gone[:1])]


def main(
    data: Annotated[Path, typer.Argument(help=f"A data set, or one of {', '.join(KNOWN)}.")],
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of a named data set, or of the images of DATA.")
    ] = None,
    context: Annotated[int, typer.Option(help="Maximum number of tokens of a text.")] = 77,
    held_out: HeldOutShare = 0.1,
    quick: Annotated[bool, typer.Option("--quick", help="Do not open the images.")] = False,
    without: Annotated[
        Path | None,
        typer.Option(help="File that lists images to exclude, such as RefCOCO's val and test."),
    ] = None,
) -> None:
    """Check a data set; exits with code 1 if it has faults."""
    limits.check({"--context": (context, limits.TOKENS), "--held-out": (held_out, limits.PART)})
    if str(data) in KNOWN and not data.exists():
        typer.echo(KNOWN[str(data)].how)
        place = folder or Path(str(data))
        faults = (
            verify(str(data), place)
            if place.is_dir()
            else [f"{place} does not exist; get it as described above"]
        )
        typer.echo("\n".join(faults) or f"{place} is complete")
        raise typer.Exit(1 if faults else 0)
    items = tables.read(data, folder)
    report = inspect(
        tables.exclude(items, without) if without else items,
        context=context,
        share=held_out,
        deep=not quick,
    )
    for name, value in report.rows:
        typer.echo(f"{name:40} {value}")
    for fault in report.faults:
        typer.echo(f"! {fault}")
    raise typer.Exit(1 if report.faults else 0)


if __name__ == "__main__":
    command.run(main)
