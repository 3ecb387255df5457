"""Measure retrieval: captions to images and back, as the field counts; names to the segments of an
index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import images
from ..encoders import Encoder
from ..errors import BadPrompt, BadTable
from ..files import captions
from ..search import Index, Match
from ..types import Array
from .datasets import Sample

CAPTIONS = (
    5  # of an image that count; the rest are left out, as in Karpathy's splits of COCO and Flickr
)
DEPTHS = (1, 5, 10)
RIGHT = 0.5  # IoU from which an outlined segment is the named object


@dataclass(frozen=True)
class Captioned:
    """Hold one image and the captions that describe it."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Recall:
    """Hold shares of queries whose right answer is among the first 1, 5 and 10, in the order of
    DEPTHS.

    to_image: each caption is a query, its own image right. to_text: each image is a query, any of
    its captions right.
    """

    images: int
    captions: int
    to_image: tuple[float, ...]
    to_text: tuple[float, ...]

    def table(self) -> list[tuple[str, str]]:
        """Give the figures as rows of name and value."""
        rows = [("images", str(self.images)), ("captions", str(self.captions))]
        for way, shares in (("text to image", self.to_image), ("image to text", self.to_text)):
            rows += [
                (f"{way}, R@{k}", f"{share:.4f}") for k, share in zip(DEPTHS, shares, strict=True)
            ]
        return rows


def read_captions(
    file: Path, folder: Path | None = None, *, split: str = "test"
) -> list[Captioned]:
    """Read captions as training does; of a file that names splits, those of ``split`` only.

    folder: of the images, ``images`` beside the file, or the file's own, if left out. Raises
    BadTable.
    """
    try:
        wanted = captions.split_named(split)
    except ValueError as error:
        raise BadPrompt(str(error)) from None
    base = folder or (file.parent / "images" if (file.parent / "images").is_dir() else file.parent)
    every = list(captions.read(file))
    splits = {caption.split for caption in every} - {""}
    gathered: dict[str, list[str]] = {}
    for number, caption in enumerate(every, 1):
        if splits and caption.split != wanted:
            continue
        if not caption.text:
            raise BadTable(f"{file}: caption {number}, of {caption.image}, is empty")
        gathered.setdefault(caption.image, []).append(caption.text)
    if not gathered:
        there = f" of the split {split!r}; it has {', '.join(sorted(splits))}" if splits else ""
        raise BadTable(f"{file} holds no captions{there}")
    return [Captioned(base / name, tuple(texts[:CAPTIONS])) for name, texts in gathered.items()]


def evaluate_captions(
    encoder: Encoder,
    captioned: Sequence[Captioned],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Recall:
    """Compare every image with every caption, as they stand; ``tell`` hears how many images are
    done.
    """
    rows = []
    for done, one in enumerate(captioned, 1):
        rows.append(encoder.encode_images([images.load(one.path).pixels])[0])
        tell(done, len(captioned))
    texts = [" ".join(caption.split()) for one in captioned for caption in one.captions]
    owner = np.repeat(np.arange(len(captioned)), [len(one.captions) for one in captioned])
    similarity = np.array(rows) @ encoder.encode_texts(texts).T  # (images, captions)
    return recall(similarity, owner)


def recall(similarity: Array, owner: Array) -> Recall:
    """Count recall both ways; of equal ones the first counts as nearer.

    similarity: (I, T). owner: (T,), the image each caption is of.
    """
    count, every = similarity.shape
    own = similarity[owner, np.arange(every)]  # (T,)
    before = np.arange(count)[:, None] < owner[None]  # (I, T)
    image_rank = ((similarity > own) | ((similarity == own) & before)).sum(
        axis=0
    )  # (T,) images that are nearer
    order = np.argsort(-similarity, axis=1, kind="stable")
    mine = owner[order] == np.arange(count)[:, None]  # (I, T)
    text_rank = np.where(mine.any(axis=1), mine.argmax(axis=1), every)
    to_image = tuple(float(np.mean(image_rank < k)) for k in DEPTHS)
    to_text = tuple(float(np.mean(text_rank < k)) for k in DEPTHS)
    return Recall(count, every, to_image, to_text)


@dataclass(frozen=True)
class Found:
    """Hold how names find pictures that show such an object, by segments and by whole images.

    names: asked. regions, whole: shares of them with a right picture among the first 1, 5, 10.
    precision: right among the first min(10, all there are), by regions and whole. outlined: share
    of right first answers whose segment is the object, IoU 0.5 or more.
    """

    names: int
    regions: tuple[float, ...]
    whole: tuple[float, ...]
    precision: tuple[float, float]
    outlined: float

    def table(self) -> list[tuple[str, str]]:
        """Give the figures as rows of name and value."""
        rows = [("names asked", str(self.names))]
        for way, shares in (("segments", self.regions), ("whole images", self.whole)):
            rows += [
                (f"by {way}, R@{k}", f"{share:.3f}")
                for k, share in zip(DEPTHS, shares, strict=True)
            ]
        rows += [
            (f"by {way}, right among the first 10", f"{share:.3f}")
            for way, share in zip(("segments", "whole images"), self.precision, strict=True)
        ]
        return [*rows, (f"outlined segment is the object (IoU {RIGHT:g})", f"{self.outlined:.3f}")]


def evaluate_names(index: Index, samples: Sequence[Sample], *, by: str | None = None) -> Found:
    """Ask an index for every name that one of its labelled pictures shows big and plain enough."""
    samples_of = {
        sample.path.name: sample
        for sample in samples
        if sample.path.name in set(index.pictures.names)
    }
    asked = sorted(
        {
            name
            for s in samples_of.values()
            for name, ask in zip(s.names, s.askable, strict=True)
            if ask
        }
    )
    hits: dict[bool, list[list[bool]]] = {True: [], False: []}
    shares: dict[bool, list[float]] = {True: [], False: []}
    outlined = []
    for name in asked:
        there = sum(name in sample.names for sample in samples_of.values())
        for deep in (True, False):
            found = index.search(name, n=max(DEPTHS), regions=deep, by=by)
            right = [name in samples_of[match.name].names for match in found]
            hits[deep].append([any(right[:k]) for k in DEPTHS])
            shares[deep].append(sum(right[:there]) / min(there, max(DEPTHS)))
            if deep and right and right[0]:
                outlined.append(_overlap(index, found[0], samples_of[found[0].name], name) >= RIGHT)
    tables = [
        tuple(np.mean(hits[deep], axis=0).tolist()) if asked else (float("nan"),) * 3
        for deep in (True, False)
    ]
    precision = float(np.mean(shares[True] or np.nan)), float(np.mean(shares[False] or np.nan))
    return Found(len(asked), tables[0], tables[1], precision, float(np.mean(outlined or np.nan)))


def _overlap(index: Index, match: Match, sample: Sample, name: str) -> float:
    rows = [row for row, said in enumerate(sample.names) if said == name]
    found = index.masks(match)
    if found.size != sample.masks.size:
        raise BadTable(
            f"{sample.path} is {found.size} high and wide in the index, {sample.masks.size} in its "
            "table"
        )
    return float(found.iou(sample.masks[rows]).max(initial=0))
