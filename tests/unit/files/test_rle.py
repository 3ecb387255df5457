"""Run-length codes are decoded as in pycocotools, and invalid ones are rejected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from segclip.errors import BadIndex
from segclip.exporters import records
from segclip.files import rle
from segclip.types import Array, Masks


def decoded(counts: str | list[int], size: tuple[int, int]) -> Array:
    return Masks.from_windows([rle.window(counts, size)], size).full(0)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_text_and_list_codes_are_decoded_as_in_pycocotools(share: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        size = int(rng.integers(1, 70)), int(rng.integers(1, 70))
        mask = rng.random(size) < share
        if rng.random() < 0.5:
            mask = np.kron(mask, np.ones((5, 7))) > 0
        code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        assert np.array_equal(decoded(code, mask.shape), mask)
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat, prepend=False, append=False))
        runs = np.diff([0, *edges, flat.size]).tolist()
        assert np.array_equal(decoded(runs, mask.shape), mask)


@pytest.mark.parametrize(
    "counts",
    [
        "",
        "0",
        "zz",
        "\x00\x01",
        "ä",
        "oooo",
        "o" * 40 + "0",
        [],
        [1],
        [101],
        [50, 51],
        [-1, 101],
        [200, -100],
        [50.0, 50.0],
        [True, 99],
        ["100"],
        [None],
        [2**70],
        [10**400],
    ],
)
def test_an_invalid_code_is_rejected(counts: str | list[int]) -> None:
    """Fault 17.17c: pycocotools wrote out of bounds for such codes."""
    with pytest.raises(ValueError, match="its "):
        rle.window(counts, (10, 10))


@pytest.mark.parametrize("size", [(0, 10), (-10, -10), (10**6, 10**6), (10.0, 10), ("10", 10)])
def test_an_invalid_size_is_rejected(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="its size"):
        rle.window([0, 100], size)


@pytest.mark.parametrize(
    "code",
    [
        {},
        {"size": [10, 10]},
        {"size": 5, "counts": "0"},
        {"size": [10], "counts": "0"},
        {"size": [10, 10], "counts": 5},
        {"size": [10, 10], "counts": "oooo"},
        {"size": [10**6, 10**6], "counts": [0, 10**12]},
        {"size": None, "counts": None},
    ],
)
def test_a_damaged_stored_mask_is_reported(code: dict[str, Any]) -> None:
    """Fault 17.17c: in journals and indexes too."""
    with pytest.raises(BadIndex, match="a stored mask is damaged"):
        records.decode_rle(code)


def test_random_texts_are_rejected_or_of_the_right_size() -> None:
    rng = np.random.default_rng(1)
    for _ in range(3000):
        text = bytes(rng.integers(44, 116, rng.integers(1, 12)).tolist()).decode()
        try:
            assert decoded(text, (4, 5)).shape == (4, 5)
        except ValueError:
            continue
