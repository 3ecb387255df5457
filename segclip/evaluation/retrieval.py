"""Measure retrieval: recall of captions to images and back; of names to segments of an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import images
from ..encoders import Encoder
from ..errors import BadPrompt, BadTable
from ..files import captions
from ..search import Index, Match
from ..types import Array
from .datasets import RIGHT, OnProgress, Sample, reporting, silent

CAPTIONS = 5  # used per image, as in Karpathy's splits of COCO and Flickr
DEPTHS = (1, 5, 10)


@dataclass(frozen=True)
class CaptionedImage:
    """One image and the captions that describe it."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Recall:
    """Recall at 1, 5 and 10, in the order of DEPTHS.

    to_image: each caption is a query, and only its own image is correct. to_text: each image is a
    query, and any of its captions is correct.
    """

    images: int
    captions: int
    to_image: tuple[float, ...]
    to_text: tuple[float, ...]

    def table(self) -> list[tuple[str, str]]:
        """Return the figures as rows of name and value."""
        rows = [("images", str(self.images)), ("captions", str(self.captions))]
        for direction, shares in (
            ("text to image", self.to_image),
            ("image to text", self.to_text),
        ):
            rows += [
                (f"{direction}, R@{k}", f"{share:.4f}")
                for k, share in zip(DEPTHS, shares, strict=True)
            ]
        return rows


def read_captions(
    file: Path, folder: Path | None = None, *, split: str = "test"
) -> list[CaptionedImage]:
    """Read captions as training does; if the file names splits, only those of ``split``.

    folder: of the images; default: ``images`` beside the file if it exists, else the file's own
    folder. Raises BadTable, and BadPrompt for an unknown split.
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
        there = (
            f" of the split {split!r}; its splits are {', '.join(sorted(splits))}" if splits else ""
        )
        raise BadTable(f"{file} holds no captions{there}")
    return [
        CaptionedImage(base / name, tuple(texts[:CAPTIONS])) for name, texts in gathered.items()
    ]


def evaluate_captions(
    encoder: Encoder, captioned: Sequence[CaptionedImage], report: OnProgress = silent
) -> Recall:
    """Compare every image with every caption, each used verbatim without a template."""
    rows = [
        encoder.encode_images([images.load(item.path).pixels])[0]
        for item in reporting(captioned, report)
    ]
    texts = [" ".join(caption.split()) for item in captioned for caption in item.captions]
    owner = np.repeat(np.arange(len(captioned)), [len(item.captions) for item in captioned])
    similarity = np.array(rows) @ encoder.encode_texts(texts).T  # (images, captions)
    return recall(similarity, owner)


def recall(similarity: Array, owner: Array) -> Recall:
    """Compute recall in both directions; of equal similarities the first ranks higher.

    similarity: (I, T). owner: (T,), the image of each caption.
    """
    count, every = similarity.shape
    own = similarity[owner, np.arange(every)]  # (T,)
    before = np.arange(count)[:, None] < owner[None]  # (I, T)
    nearer = (similarity > own) | ((similarity == own) & before)
    image_rank = nearer.sum(axis=0)  # (T,)
    order = np.argsort(-similarity, axis=1, kind="stable")
    mine = owner[order] == np.arange(count)[:, None]  # (I, T)
    text_rank = np.where(mine.any(axis=1), mine.argmax(axis=1), every)
    to_image = tuple(float(np.mean(image_rank < k)) for k in DEPTHS)
    to_text = tuple(float(np.mean(text_rank < k)) for k in DEPTHS)
    return Recall(count, every, to_image, to_text)


@dataclass(frozen=True)
class NameSearchReport:
    """Retrieval by name of images that contain such an object, by segments and by whole images.

    names: number of queries. regions, whole: share of them with a correct image among the first 1,
    5 and 10. precision: share of correct images among the first min(10, all there are), by segments
    and by whole images. outlined: share of correct first results whose segment is the object, at an
    IoU of 0.5 or more.
    """

    names: int
    regions: tuple[float, ...]
    whole: tuple[float, ...]
    precision: tuple[float, float]
    outlined: float

    def table(self) -> list[tuple[str, str]]:
        """Return the figures as rows of name and value."""
        rows = [("names queried", str(self.names))]
        for unit, shares in (("segments", self.regions), ("whole images", self.whole)):
            rows += [
                (f"by {unit}, R@{k}", f"{share:.3f}")
                for k, share in zip(DEPTHS, shares, strict=True)
            ]
        rows += [
            (f"by {unit}, precision at 10", f"{share:.3f}")
            for unit, share in zip(("segments", "whole images"), self.precision, strict=True)
        ]
        return [*rows, (f"outlined segment is the object (IoU {RIGHT:g})", f"{self.outlined:.3f}")]


def evaluate_names(index: Index, samples: Sequence[Sample]) -> NameSearchReport:
    """Query an index with every name that is askable in one of its labelled images."""
    indexed = set(index.images.names)
    samples_of = {one.path.name: one for one in samples if one.path.name in indexed}
    askable = [np.array(one.names, object)[one.askable] for one in samples_of.values()]
    names = sorted({name for listed in askable for name in listed})
    hits: dict[bool, list[list[bool]]] = {True: [], False: []}
    shares: dict[bool, list[float]] = {True: [], False: []}
    outlined = []
    for name in names:
        total = sum(name in sample.names for sample in samples_of.values())
        for by_region in (True, False):
            found = index.search(name, n=max(DEPTHS), regions=by_region)
            right = [name in samples_of[match.name].names for match in found]
            hits[by_region].append([any(right[:k]) for k in DEPTHS])
            shares[by_region].append(sum(right[:total]) / min(total, max(DEPTHS)))
            if by_region and right and right[0]:
                outlined.append(_overlap(index, found[0], samples_of[found[0].name], name) >= RIGHT)
    tables = [
        tuple(np.mean(hits[by_region], axis=0).tolist()) if names else (float("nan"),) * 3
        for by_region in (True, False)
    ]
    precision = float(np.mean(shares[True] or np.nan)), float(np.mean(shares[False] or np.nan))
    return NameSearchReport(
        len(names), tables[0], tables[1], precision, float(np.mean(outlined or np.nan))
    )


def _overlap(index: Index, match: Match, sample: Sample, name: str) -> float:
    found = index.masks(match)
    if found.size != sample.masks.size:
        raise BadTable(
            f"{sample.path} has size (H, W) = {found.size} in the index, {sample.masks.size} in "
            "its table; index and label the same files"
        )
    return sample.iou(found, name)
