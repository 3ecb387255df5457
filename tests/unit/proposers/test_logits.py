"""Sampling coarse logits in windows equals interpolating the whole frame, for any steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from segclip.proposers.logits import Axis, Sampler
from segclip.types import Array


def grid(seed: int = 0, cells: int = 32) -> Array:
    coarse = torch.from_numpy(
        np.random.default_rng(seed).normal(size=(1, 1, 6, 6)).astype(np.float32)
    )
    smooth: Array = interpolate(coarse, (cells, cells), mode="bicubic")[0, 0].numpy()
    return smooth


def through_frame(
    cells: Array, frame: int, content: tuple[int, int], size: tuple[int, int]
) -> Array:
    """Resize to the frame, drop the padding, resize to the image, as SAM does with whole masks."""
    whole = interpolate(torch.from_numpy(cells)[None, None], (frame, frame), mode="bilinear")
    image = interpolate(whole[..., : content[0], : content[1]], size, mode="bilinear")
    resized: Array = image[0, 0].numpy()
    return resized


def sampler(frame: int, content: tuple[int, int], size: tuple[int, int]) -> Sampler:
    rows, columns = (
        Axis.through(32, [frame, slice(0, kept), pixels])
        for kept, pixels in zip(content, size, strict=True)
    )
    return Sampler(rows, columns)


@pytest.mark.parametrize("size", [(96, 128), (300, 400), (30, 40)])
def test_a_window_equals_its_part_of_the_whole(size: tuple[int, int]) -> None:
    cells, content = grid(), (96, 128)
    whole = through_frame(cells, 128, content, size)
    found = sampler(128, content, size)
    x1, y1, x2, y2 = size[1] // 4, size[0] // 5, size[1] - 3, size[0]
    bands = np.concatenate([band for _, band in found.bands(cells, (x1, y1, x2, y2))])
    np.testing.assert_allclose(bands, whole[y1:y2, x1:x2], atol=1e-5)
    assert (found.mask(cells, (x1, y1, x2, y2)) == (bands > 0)).all()


@pytest.mark.parametrize("seed", range(8))
def test_reach_contains_every_positive_pixel(seed: int) -> None:
    cells = grid(seed) - 1.2
    size = (150, 200)
    whole = through_frame(cells, 128, (96, 128), size) > 0
    found = sampler(128, (96, 128), size)
    x1, y1, x2, y2 = found.reach(cells > 0)
    assert whole[y1:y2, x1:x2].sum() == whole.sum()
    outside = whole.copy()
    outside[y1:y2, x1:x2] = False
    assert not outside.any()


def test_reach_is_at_most_a_cell_too_wide() -> None:
    one = np.zeros((32, 32), bool)
    one[10, 20] = True
    x1, y1, x2, y2 = sampler(128, (96, 128), (150, 200)).reach(one)
    assert (x1, y1) >= (118, 56)
    assert (x2, y2) <= (138, 75)


def test_reach_without_positive_cells_is_empty() -> None:
    found = sampler(128, (96, 128), (150, 200))
    assert found.reach(np.zeros((32, 32), bool)) == (0, 0, 0, 0)
    assert found.mask(grid(), (0, 0, 0, 0)).shape == (0, 0)
    padding = np.zeros((32, 32), bool)
    padding[31, 31] = True  # below the image
    x1, y1, x2, y2 = found.reach(padding)
    assert (x2 - x1) * (y2 - y1) == 0


def test_a_span_may_end_inside_a_cell() -> None:
    axis = Axis.spanning(8, 6.5, 13)
    ramp = np.arange(8, dtype=np.float32)
    np.testing.assert_allclose(
        axis.weights @ ramp, ((np.arange(13) + 0.5) * 0.5 - 0.5).clip(0), atol=1e-6
    )
    np.testing.assert_allclose(axis.weights.sum(axis=1), 1)
    even = Axis.through(8, [slice(0, 8), 16])
    np.testing.assert_allclose(Axis.spanning(8, 8.0, 16).weights, even.weights, atol=1e-6)
