"""The refiner: windows hold the object, cut and paste are aligned, other masks are kept."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from segclip.errors import BadPrompt
from segclip.proposers.edges import Frame
from segclip.proposers.edges import refine as refine_masks
from segclip.proposers.logits import Axis, Sampler
from segclip.proposers.refiner import (
    FocusOptions,
    GivenPrompt,
    Window,
    corrected,
    cut,
    fused,
    input_planes,
    refine,
    refined_patches,
)
from segclip.types import Array, Image, Masks
from tests.networks import FOCUS, refiner
from tests.unit.proposers.test_edges import iou, star


@pytest.mark.parametrize(
    ("size", "channels"), [(2, (8, 16)), (98, (8, 16, 32, 64)), (0, (8,)), (-16, (8,)), (96, ())]
)
def test_a_window_that_its_levels_cannot_halve_is_refused(
    size: int, channels: tuple[int, ...]
) -> None:
    with pytest.raises(BadPrompt, match="multiple of"):
        FocusOptions(size=size, channels=channels)


def sampler(size: tuple[int, int], cell: int) -> Sampler:
    rows, columns = (Axis.spanning(pixels // cell, pixels // cell, pixels) for pixels in size)
    return Sampler(rows, columns)


def placed(size: tuple[int, int], x: int, y: int, side: int) -> Array:
    full = np.zeros(size, bool)
    full[y : y + side, x : x + side] = star(side)
    return full


def coarse(mask: Array, cell: int) -> Array:
    height, width = mask.shape
    share = cv2.resize(
        mask.astype(np.float32), (width // cell, height // cell), interpolation=cv2.INTER_AREA
    )
    return ((share - 0.5) * 10).astype(np.float32)


def test_a_window_is_a_square_around_the_mask_and_the_prompt() -> None:
    mask = np.array([[10.0, 20, 50, 40]])
    window = Window.around(mask, GivenPrompt(np.array([(60, 25, 1), (90, 90, 0)])), FOCUS)
    assert (window.x, window.y, window.side) == (0, -5, 70)
    box = Window.around(mask, GivenPrompt(np.zeros((0, 3)), np.array([10.0, 0, 60, 40])), FOCUS)
    assert (box.x, box.y, box.side) == (5, -10, 60)
    click = GivenPrompt(np.array([(11, 20, 1)]))
    assert Window.around(np.array([[10.0, 20, 12, 21]]), click, FOCUS).side == FOCUS.least


@pytest.mark.parametrize(
    "window", [Window(20, 30, 64), Window(-10.5, 70.25, 90), Window(-40, -40, 400)]
)
def test_what_is_cut_goes_back_to_where_it_was(window: Window) -> None:
    mask = placed((200, 240), 30, 60, 60)
    inputs = cut(mask[..., None].astype(np.uint8) * 255, window, 128).reshape(128, 128)
    x, y, logits = corrected(inputs, window, mask.shape)
    back = np.zeros(mask.shape, bool)
    back[y : y + logits.shape[0], x : x + logits.shape[1]] = logits > 0
    x1, y1, x2, y2 = (
        int(v) for v in (window.x, window.y, window.x + window.side, window.y + window.side)
    )
    inside = mask.copy()
    inside[: max(y1, 0)] = inside[y2:] = inside[:, : max(x1, 0)] = inside[:, x2:] = False
    assert iou(back, inside) > 0.95


def test_no_pixel_of_a_large_window_is_skipped() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), np.uint8)
    inputs = cut(pixels, Window(0, 0, 1200), 64)
    assert abs(float(inputs.mean())) < 0.02
    assert float(inputs.std()) < 0.1


def test_input_planes_are_aligned_with_the_image() -> None:
    mask = placed((160, 200), 40, 50, 80)
    image = Image(np.where(mask[..., None], (250, 10, 10), (10, 10, 250)).astype(np.uint8), "star")
    window = Window(20, 30, 128)
    prompt = GivenPrompt(np.array([(80, 90, 1), (30, 40, 0)]), np.array([40.0, 50, 120, 130]))
    grid = sampler(image.size, 4), coarse(mask, 4)
    planes = input_planes(image, grid, window, prompt, 64)
    truth = cut(mask[..., None].astype(np.uint8) * 255, window, 64).reshape(64, 64) > 0
    assert iou(planes[0] > 0, truth) > 0.95
    assert iou(planes[3] > 0, truth) > 0.85
    for plane, (x, y) in ((4, (80, 90)), (5, (30, 40))):
        ys, xs = np.nonzero(planes[plane])
        np.testing.assert_allclose((xs.mean() * 2 + 20, ys.mean() * 2 + 30), (x, y), atol=1.5)
    ys, xs = np.nonzero(planes[6])
    assert (xs.min() * 2 + 20, ys.min() * 2 + 30) == (40, 50)
    assert (xs.max() * 2 + 22, ys.max() * 2 + 32) == (120, 130)
    positive = sampler(image.size, 4), np.full((40, 50), 9, np.float32)
    beyond = input_planes(image, positive, Window(-64, 0, 128), prompt, 64)
    assert (beyond[3, :, :32] == -1).all()
    assert (beyond[3, :, 32:] == 1).all()
    assert np.abs(beyond[:3, :, :31]).max() < 0.01


def test_an_untrained_refiner_returns_the_coarse_logits() -> None:
    planes = torch.randn(2, 7, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(refiner()(planes), planes[:, 3:4] * 8)


def test_fused_norms_change_nothing() -> None:
    inputs = list(np.random.default_rng(0).normal(size=(3, 7, 64, 64)).astype(np.float32))
    before = refine(refiner(trained=True), inputs)
    network = fused(refiner(trained=True))
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())
    np.testing.assert_allclose(refine(network, inputs), before, atol=1e-4)


def test_a_refined_mask_lies_where_it_was_and_others_are_unchanged() -> None:
    size = (160, 200)
    stars = [placed(size, 10, 20, 60), placed(size, 110, 70, 70)]
    masks = Masks.from_dense(np.stack(stars))
    frame = Frame(sampler(size, 4), Image(np.zeros((*size, 3), np.uint8), "dark"), 1)
    rows = [(1, coarse(stars[1], 4), GivenPrompt(np.array([(140, 100, 1)])))]
    (patch,) = refined_patches(refiner(), rows, masks, frame)
    assert patch.row == 1
    found = refine_masks(masks, [patch], frame, None)
    assert np.array_equal(found.full(0), stars[0])
    assert iou(found.full(1), stars[1]) > 0.9
    assert not list(refined_patches(refiner(), [], Masks.empty(size), frame))


def test_a_correction_may_cover_more_pixels_than_opencv_can_warp() -> None:
    logits = np.linspace(-1, 1, 32, dtype=np.float32)[:, None].repeat(32, axis=1)
    x, y, wide = corrected(logits, Window(-20_000, 0, 40_001), (40_000, 1))
    assert (x, y, wide.shape) == (0, 0, (40_000, 1))
    assert (np.diff(wide[:, 0]) >= 0).all()
    assert abs(wide[20_000, 0]) < 0.01
