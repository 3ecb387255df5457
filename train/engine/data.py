"""Check a data set of images and captions before training, or say how to get one.

python -m train.engine.data ../shared/coco-dev           # counts, duplicates, broken images,
captions, leaks python -m train.engine.data flickr8k                     # how to get it; in a
folder that holds it, verifies it
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
from ..captions.tables import Item, Member
from . import command, limits
from .feed import readable


@dataclass(frozen=True)
class Known:
    """Say where a data set is and what it holds. files: one of each row must be there."""

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
        "Ask for it at https://hockenmaier.cs.illinois.edu/8k-pictures.html, or take "
        "adityajn105/flickr8k at "
        "kaggle.com (captions.txt and Images/). The usual split is in Karpathy's "
        "dataset_flickr8k.json, "
        "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip; "
        "put it beside.",
    ),
    "flickr30k": Known(
        31783,
        158915,
        (("results.csv", "dataset_flickr30k.json", "captions.txt"), ("flickr30k_images", "images")),
        "Ask for it at https://shannon.cs.illinois.edu/DenotationGraph/, or take "
        "hsankesara/flickr-image-dataset at "
        "kaggle.com (results.csv and flickr30k_images/); Karpathy's dataset_flickr30k.json gives "
        "the usual split.",
    ),
    "coco": Known(
        123287,
        616767,
        (("dataset_coco.json", "captions.json"), ("images", "train2014", "train2017")),
        "http://images.cocodataset.org: train2014, val2014 and annotations_trainval2014; "
        "Karpathy's dataset_coco.json "
        "(caption_datasets.zip, as above) gives the usual split. Images lie in FOLDER/train2014 "
        "and FOLDER/val2014.",
    ),
}


@dataclass(frozen=True)
class Report:
    """Hold what a check found. rows: name and value. faults: what should be put right."""

    rows: tuple[tuple[str, str], ...]
    faults: tuple[str, ...]


def inspect(
    items: Sequence[Item], *, context: int = 77, share: float = 0.1, deep: bool = True
) -> Report:
    """Count what is there and what is wrong. context: tokens a text may have. deep: open every
    image.
    """
    said = [caption for item in items for caption in item.captions]
    words = np.array([len(caption.split()) for caption in said] or [0])
    tokenizer = open_clip.SimpleTokenizer(context_length=context)
    cut = sum(len(tokenizer.encode(caption)) > context - 2 for caption in set(said))
    repeats = Counter(" ".join(caption.lower().split()) for caption in said)
    groups = len({item.group for item in items})
    rows = [("images", str(groups))]
    rows += [("regions", str(len(items)))] if any(item.region is not None for item in items) else []
    rows += [
        ("captions", str(len(said))),
        ("captions an image", f"{len(said) / max(groups, 1):.2f}"),
        ("words a caption, median and most", f"{np.median(words):.0f}, {words.max()}"),
        (f"captions cut at {context} tokens", str(cut)),
        ("captions said more than once", str(sum(count > 1 for count in repeats.values()))),
    ]
    faults = [f"{sum(not caption for caption in said)} captions are empty"] if not all(said) else []
    if deep:
        items, broken = readable(items)
        rows.append(("images that cannot be read", str(len(broken))))
        faults += broken[:10]
    faults += _copies(items, rows, share)
    return Report(tuple(rows), tuple(faults))


def _copies(items: Sequence[Item], rows: list[tuple[str, str]], share: float) -> list[str]:
    """Look for equal files, and for those on both sides of the split."""
    if not items:
        return ["no image can be read"]
    trained, judge = tables.split(items, share)
    rows += [
        ("trained on, images", str(len({item.group for item in trained}))),
        ("held out, images", str(len({item.group for item in judge}))),
    ]
    sides: dict[str, set[str]] = {}
    names: dict[str, set[str]] = {}
    for side, part in (("train", trained), ("held out", judge)):
        for item in {item.group: item for item in part}.values():
            digest = sha256(_bytes(item)).hexdigest()
            sides.setdefault(digest, set()).add(side)
            names.setdefault(digest, set()).add(item.group)
    copies = [sorted(group) for group in names.values() if len(group) > 1]
    leaks = [sorted(names[digest]) for digest, both in sides.items() if len(both) > 1]
    rows += [
        ("images with equal copies", str(len(copies))),
        ("images on both sides of the split", str(len(leaks))),
    ]
    return [
        f"{' and '.join(leak)} are one image, on both sides of the split" for leak in leaks[:10]
    ]


def _bytes(item: Item) -> bytes:
    return item.image.read() if isinstance(item.image, Member) else item.image.read_bytes()


def verify(name: str, folder: Path) -> list[str]:
    """Say what is missing of a known data set, nothing when it is whole."""
    known = KNOWN[name]
    absent = [
        " or ".join(row) for row in known.files if not any((folder / file).exists() for file in row)
    ]
    if absent:
        return [f"{folder} lacks {file}" for file in absent]
    items = tables.read(folder)
    faults = []
    if len(items) != known.images:
        faults.append(f"{len(items)} images are told of, {known.images} expected")
    said = sum(len(item.captions) for item in items)
    if said < known.captions:
        faults.append(f"{said} captions, {known.captions} expected")
    gone = [str(item.image) for item in items if not Path(str(item.image)).exists()]
    return [*faults, *(f"{len(gone)} images are missing, {gone[0]} for one" for _ in gone[:1])]


def main(
    data: Annotated[Path, typer.Argument(help=f"A data set, or one of {', '.join(KNOWN)}.")],
    folder: Annotated[
        Path | None, typer.Argument(help="Where a named data set lies, or the images of DATA.")
    ] = None,
    context: Annotated[int, typer.Option(help="Tokens a text may have.")] = 77,
    held_out: Annotated[
        float, typer.Option(help="Share of images that judge, where DATA has no split.")
    ] = 0.1,
    quick: Annotated[bool, typer.Option("--quick", help="Don't open the images.")] = False,
    without: Annotated[
        Path | None,
        typer.Option(help="A list of images to leave out, such as RefCOCO's val and test."),
    ] = None,
) -> None:
    """Check a data set; exit code 1 when something should be put right."""
    limits.check({"--context": (context, limits.TOKENS), "--held-out": (held_out, limits.PART)})
    if str(data) in KNOWN and not data.exists():
        typer.echo(KNOWN[str(data)].how)
        place = folder or Path(str(data))
        faults = (
            verify(str(data), place)
            if place.is_dir()
            else [f"{place} is not there; get it as above"]
        )
        typer.echo("\n".join(faults) or f"{place} is whole")
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
