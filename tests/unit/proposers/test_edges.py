"""Masks fitted to the image's edges are closer to them than the network's, and kept without any."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from segclip.proposers.edges import EdgeOptions, fit
from segclip.proposers.fastsam import FastSAM, FastSAMOptions
from segclip.proposers.logits import Axis
from segclip.proposers.network import Clicks
from segclip.proposers.promptable import Promptable, SAMOptions
from segclip.proposers.yolo import save
from segclip.types import Array, Boxes, Everything, Image, Points
from tests.networks import random_network, sample_image

OPTIONS = EdgeOptions()


def star(size: int) -> Array:
    ys, xs = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    return np.hypot(xs, ys) < 0.55 + 0.2 * np.cos(5 * np.arctan2(ys, xs))


def blurred(mask: Array) -> Array:
    """Return logits as from a coarse network: blurred and slightly shifted."""
    share = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), len(mask) / 20)
    return np.roll((share - 0.5) * 8, (2, 1), axis=(0, 1))


def render(mask: Array, noise: float = 6) -> Array:
    rng = np.random.default_rng(0)
    pixels = np.where(mask[..., None], (200, 60, 40), (90, 140, 180)) + rng.normal(
        0, noise, (*mask.shape, 3)
    )
    return pixels.clip(0, 255).astype(np.uint8)


def iou(a: Array, b: Array) -> float:
    return int((a & b).sum()) / int((a | b).sum())


@pytest.mark.parametrize(("size", "step"), [(120, 1), (600, 5)])
def test_an_edge_is_found(size: int, step: int) -> None:
    mask = star(size)
    before = iou(blurred(mask) > 0, mask)
    after = iou(fit(blurred(mask), render(mask), step, OPTIONS), mask)
    assert after > before + 0.4 * (1 - before)
    assert after > 0.95


def test_without_an_edge_the_mask_hardly_changes() -> None:
    """A disc has no corners, which would be rounded."""
    mask = np.hypot(*(np.mgrid[:120, :120] - 60)) < 40
    plain = np.full((120, 120, 3), 128, np.uint8)
    assert iou(fit(blurred(mask), plain, 1, OPTIONS), blurred(mask) > 0) > 0.92


def test_only_good_proposals_are_fitted_and_only_if_enabled(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save(
        random_network("yolov8n-seg.yaml", candidates=30, size=160),
        tmp_path,
        {"image_size": 160, "confidence": 0.01},
    )
    image = sample_image(150, 200)
    plain = FastSAM(tmp_path)
    without = plain.decode(plain.encode(image), Everything())
    middle = float(np.median(without.quality))
    fitted = FastSAM(tmp_path, options=FastSAMOptions(edges=EdgeOptions(quality=middle)))
    answer = fitted.decode(fitted.encode(image), Everything())
    assert np.array_equal(answer.quality, without.quality)
    same = [
        a.shape == b.shape and bool((a == b).all())
        for a, b in zip(answer.masks.bitmaps, without.masks.bitmaps, strict=True)
    ]
    good = without.quality >= middle
    assert all(kept for kept, fits in zip(same, good, strict=True) if not fits)
    assert not all(kept for kept, fits in zip(same, good, strict=True) if fits)


def test_options_are_stored_with_the_weights(tmp_path: Path) -> None:
    network = random_network("yolov8n-seg.yaml", candidates=30, size=160)
    save(network, tmp_path, {"image_size": 160, "edges": {"radius": 7}})
    assert FastSAM(tmp_path).edges == EdgeOptions(radius=7)


class Blurred(Promptable):
    """Answer every prompt with the same blurred logits, one per pixel, at one quality."""

    device = torch.device("cpu")

    def __init__(self, mask: Array, quality: float, options: SAMOptions) -> None:
        self.mask, self.quality, self.options = mask, quality, options

    def embed(self, pixels: Array) -> None:
        """Return no features."""

    def predict(
        self, maps: None, clicks: Clicks, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(blurred(self.mask))[None, None], torch.tensor([[self.quality]])

    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        return 1.0, 1.0

    def axes(self, size: tuple[int, int]) -> tuple[Axis, Axis]:
        return Axis.through(size[0], []), Axis.through(size[1], [])


@pytest.mark.parametrize(("quality", "fitted"), [(0.9, True), (0.1, False)])
def test_answers_to_clicks_and_boxes_are_fitted_too(quality: float, fitted: bool) -> None:
    mask = star(120)
    image = Image(render(mask), "star")
    for prompt in (Points([(60, 60)]), Boxes([(5, 5, 115, 115)])):
        answers = []
        for edges in (None, OPTIONS):
            proposer = Blurred(mask, quality, SAMOptions(edges=edges))
            answers.append(proposer.decode(proposer.encode(image), prompt))
        plain, found = (answer.masks.full(0) for answer in answers)
        assert np.array_equal(answers[0].logits, answers[1].logits)  # type: ignore[arg-type]
        if fitted:
            assert iou(found, mask) > max(0.95, iou(plain, mask) + 0.02)
        else:
            assert np.array_equal(found, plain)
