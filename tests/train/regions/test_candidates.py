"""The proposer's candidates are labelled in annotated photos."""

from __future__ import annotations

import numpy as np
import pytest

from segclip.types import Array, Image, Masks, Proposals
from train.regions.candidates import MISTAKES, judge, judged
from train.regions.crop_store import WRONG
from train.scenes.photos import Photo


def labelled() -> Array:
    """Label a square object of 40 px, number 2, in an image of 100 px; number 1 is far away."""
    labels = np.zeros((100, 100), np.int16)
    labels[:8, :8], labels[40:80, 40:80] = 1, 2
    return labels


def window(y1: int, y2: int, x1: int, x2: int) -> Array:
    mask = np.zeros((100, 100), bool)
    mask[y1:y2, x1:x2] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (window(40, 80, 40, 80), (2, 0.0)),
        (window(40, 80, 40, 70), (2, 0.0)),  # IoU .75
        (window(40, 55, 40, 55), (0, 2.0)),  # a part
        (window(0, 30, 50, 90), (0, 1.0)),  # background
        (window(36, 94, 36, 94), (0, 0.0)),  # the thing and much around it, IoU .48: neither
        (window(60, 100, 40, 80), (0, 0.0)),  # half of it and as much beside
    ],
)
def test_a_candidate_is_an_object_a_part_of_one_or_background(
    mask: Array, found: tuple[int, float]
) -> None:
    assert judge(mask, labelled()) == found


class Finder:
    """Propose the objects, and many parts of them."""

    def encode(self, image: Image) -> Image:
        return image

    def decode(self, features: Image, prompt: object) -> Proposals:
        parts = [window(y, y + 15, x, x + 15) for y in range(40, 64) for x in range(40, 64)]
        masks = [window(40, 80, 40, 80), window(90, 95, 90, 95), *parts]  # the second is too small
        return Proposals(Masks.from_dense(np.stack(masks)), np.ones(len(masks), np.float32))


def test_wrong_candidates_of_a_photo_are_limited() -> None:
    photo = Photo(np.full((100, 100, 3), 99, np.uint8), labelled(), names=("Cup", "Dog"))
    ((image, masks, labels),) = judged(Finder(), [photo], {"dog": 7, "cup": 8}, 0)
    assert labels == [7, *[WRONG] * MISTAKES]
    assert (image.pixels is photo.pixels, len(masks)) == (True, len(labels))
