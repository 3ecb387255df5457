"""Label the proposer's candidates in annotated photographs: objects, and mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segclip.proposers import Proposer
from segclip.types import Array, Everything, Image, Masks

from ..scenes.photos import Photo
from .crop_store import WRONG

MISTAKES = 36  # wrong candidates kept per photo


def judged(
    proposer: Proposer, photos: Sequence[Photo], labels: dict[str, int], seed: int
) -> Iterator[tuple[Image, Masks, list[int]]]:
    """Propose candidates in exhaustively labelled photos; yield each photo, its masks and labels.

    A candidate that covers an object gets its name; a part of one, or a piece of background, is
    WRONG, of which at most MISTAKES per photo are kept, parts twice as likely.
    """
    rng = np.random.default_rng(seed)
    for photo in photos:
        image = Image(photo.pixels)
        masks = proposer.decode(proposer.encode(image), Everything()).masks
        named, wrong, chances = [], [], []
        for row in np.flatnonzero(masks.areas >= 200).tolist():
            thing, chance = judge(masks.full(row), photo.labels)
            if thing:
                named.append((row, labels[photo.names[thing - 1].lower()]))
            elif chance:
                wrong.append(row)
                chances.append(chance)
        if wrong:
            share = np.array(chances) / sum(chances)
            kept = rng.choice(wrong, min(MISTAKES, len(wrong)), replace=False, p=share)
            named += [(int(row), WRONG) for row in kept]
        yield image, masks[[row for row, _ in named]], [label for _, label in named]


def judge(mask: Array, labels: Array) -> tuple[int, float]:
    """Compare a candidate, bool (H, W), with a photo's labels: its object, and its mistake weight.

    The object is the one with an IoU of at least .55 (0: none). The weight is 2 for a part of an
    object, 1 for background; candidates in between, such as an object with much around it, are
    neither.
    """
    areas = np.bincount(labels.ravel())
    inside = np.bincount(labels[mask], minlength=len(areas))
    area = inside.sum()
    iou = inside / np.maximum(areas + area - inside, 1)
    iou[0] = 0
    best = int(iou.argmax())
    if iou[best] >= 0.55:
        return best, 0.0
    if best and iou[best] < 0.4 and inside[best] > 0.7 * area:
        return 0, 2.0
    return 0, float(inside[0] > 0.75 * area)
