"""Decode COCO run-length codes of masks with NumPy, safely: invalid codes raise errors.

pycocotools would access memory out of bounds. A code counts pixels down the columns, background
first; its text form packs each count, as the difference from the one two before, into characters of
five bits.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from ..types import Array

MOST = 2**32  # pixels of an image
_LONGEST = 7  # characters of a count; 35 bits are more than any image has pixels


def window(counts: str | Sequence[int], size: tuple[int, int]) -> tuple[int, int, Array]:
    """Decode a mask's columns as x, y, bool (H, w), a window of ``Masks.from_windows``.

    counts: text or whole numbers. size: (H, W) of the image. Raises ValueError for an invalid code
    or one of another size.
    """
    runs, height = _runs(counts, size), int(size[0])
    ends = np.cumsum(runs)
    starts = ends - runs
    inside = (np.arange(len(runs)) % 2 == 1) & (runs > 0)
    if not inside.any():
        return 0, 0, np.zeros((0, 0), bool)
    left, right = int(starts[inside][0]) // height, (int(ends[inside][-1]) - 1) // height + 1
    first, last = left * height, right * height
    kept = np.clip(ends, first, last) - np.clip(starts, first, last)
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, kept).reshape(right - left, height)
    return left, 0, columns.T


def is_code(counts: str, size: tuple[int, int]) -> bool:
    """Return whether a text is a valid code for a size; pycocotools corrupts memory otherwise."""
    try:
        _runs(counts, size)
    except ValueError:
        return False
    return True


def _runs(counts: str | Sequence[int], size: tuple[int, int]) -> Array:
    """Return the length of each run in pixels, background first: int64 (N,). Raises ValueError."""
    try:
        height, width = map(operator.index, size)
    except TypeError:
        height = width = 0
    if min(height, width) < 1 or height * width >= MOST:
        raise ValueError(f"its size is {size!r}")
    runs = _unpacked(counts) if isinstance(counts, str) else _listed(counts)
    if (runs < 0).any() or int(runs.sum()) != height * width:
        raise ValueError(
            f"its runs cover {int(runs.sum())} pixels, not {height} x {width}, or one is below 0"
        )
    return runs


def _listed(counts: Sequence[int]) -> Array:
    if not isinstance(counts, list | tuple) or not all(
        type(count) is int and abs(count) < 2**40 for count in counts
    ):
        raise ValueError("its counts are not all whole numbers")
    return np.array(counts, np.int64)


def _unpacked(counts: str) -> Array:
    """Unpack the text form into runs: int64 (N,)."""
    digits = np.frombuffer(counts.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    if not len(digits):
        return np.zeros(0, np.int64)
    if digits.min() < 0 or digits.max() > 63:
        raise ValueError("its counts hold an invalid character")
    last = (digits & 32) == 0
    ends = np.flatnonzero(last)
    if not last[-1]:
        raise ValueError("its counts end inside a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise ValueError("its counts hold a number that is too large")
    places = np.arange(len(digits)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((digits & 31) << (5 * places), starts)
    signs = np.where(digits[ends] & 16, np.int64(1) << (5 * lengths), 0)  # of the highest bit
    runs -= signs
    for first in (1, 2):  # from the fourth on, each is the difference from the one two before
        runs[first::2] = np.cumsum(runs[first::2])
    return runs
