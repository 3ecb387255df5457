"""Fault 17.14: images too thin for a network's frame work everywhere, with the shipped models."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segclip
from segclip import drawing, exporters
from segclip.encoders.patches import Dense
from segclip.files import formats
from segclip.proposers.refiner import Window, corrected
from segclip.scoring import crops
from segclip.scoring.crops import View, cut
from segclip.types import Image, Masks

SIZES = [(4000, 2), (2, 4000), (3000, 1), (1, 1), (1, 3)]  # (H, W)
LONGEST = [(100_000, 1), (1, 100_000)]
load_picker = cache(segclip.load_picker)


def striped(size: tuple[int, int]) -> Image:
    pixels = np.full((*size, 3), (200, 30, 30), np.uint8)
    pixels[size[0] // 3 : size[0] // 2] = (20, 200, 40)
    pixels[:, size[1] // 2 : size[1] * 3 // 4] = (30, 30, 220)
    return Image(pixels, "thin.png")


@pytest.mark.parametrize("name", ["mini", "mini-sam"])
@pytest.mark.parametrize("size", [*SIZES, *LONGEST])
def test_every_prompt_is_answered(size: tuple[int, int], name: str) -> None:
    picker, (height, width) = load_picker(name), size
    encoded = picker.encode(striped(size))
    prompts: list[segclip.Points | segclip.Boxes] = [
        segclip.Points([(width / 2, height / 2)], [1]),
        segclip.Points([(width - 0.5, height - 0.5)], [1], box=(0, 0, width, height)),
        segclip.Boxes([(0, 0, width, height), (0, 0, (width + 1) // 2, (height + 1) // 2)]),
    ]
    for prompt in prompts:
        assert picker.pick(encoded, prompt).image.size == size


@pytest.mark.parametrize("size", SIZES)
def test_every_format_is_written(size: tuple[int, int], tmp_path: Path) -> None:
    image, masks = striped(size), Masks.from_dense(np.ones((2, *size), bool))
    regions = segclip.Regions(
        image, segclip.Proposals(masks, np.array([0.9, 0.8])), np.zeros((2, 1), np.float32)
    )
    scores = np.array([0.9, 0.8], np.float32)
    result = segclip.Result(regions, ("a", "b"), scores, scores, ("a", "b", "c"), 0.5)
    for name, ending in formats.PER_IMAGE.items():
        assert exporters.save(result, tmp_path / f"x.{ending}", format=name)
    drawing.spotlight(result)
    drawing.contact_sheet([drawing.overlay(result)], ["thin"])


@pytest.mark.parametrize("size", LONGEST)
@pytest.mark.parametrize("fill", ["keep", "blur"])
def test_a_crop_needs_little_memory(size: tuple[int, int], fill: str) -> None:
    image, masks = striped(size), Masks.from_dense(np.ones((1, *size), bool))
    (crop,) = cut(image, masks, View(1.5, fill), 64)
    assert crop.shape == (64, 64, 3)
    if fill == "keep":
        assert len(np.unique(crop.reshape(-1, 3), axis=0)) > 1  # the stripes are visible


@pytest.mark.parametrize("context", [1.0, 1.5, 3.0])
def test_a_crop_read_coarsely_resembles_one_read_finely(
    context: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).normal(size=(30, 40, 3))
    pixels = np.kron(noise * 60 + 128, np.ones((20, 20, 1))).clip(0, 255).astype(np.uint8)
    image = Image(pixels, "noise")
    mask = np.zeros((600, 800), bool)
    mask[100:560, 30:420] = True
    masks = Masks.from_dense(mask[None])
    fine = cut(image, masks, View(context, "black"), 32)[0].astype(int)
    monkeypatch.setattr(crops, "_LARGEST", 64)
    monkeypatch.setattr(crops, "_COARSE", 256)
    coarse = cut(image, masks, View(context, "black"), 32)[0].astype(int)
    assert np.abs(fine - coarse).mean() < 4


def test_a_correction_may_cover_more_pixels_than_opencv_can_warp() -> None:
    logits = np.linspace(-1, 1, 32, dtype=np.float32)[:, None].repeat(32, axis=1)
    x, y, wide = corrected(logits, Window(-20_000, 0, 40_001), (40_000, 1))
    assert (x, y, wide.shape) == (0, 0, (40_000, 1))
    assert (np.diff(wide[:, 0]) >= 0).all()
    assert abs(wide[20_000, 0]) < 0.01


@pytest.mark.parametrize("size", LONGEST)
def test_a_patch_head_for_any_shape_squeezes_thin_images(size: tuple[int, int]) -> None:
    dense = Dense.__new__(Dense)
    object.__setattr__(dense, "head", type("Head", (), {"side": 32})())
    object.__setattr__(dense, "any_shape", True)
    assert max(dense.fit(striped(size).pixels).shape) == 256


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", LONGEST)
def test_an_encoder_embeds_a_thin_image(size: tuple[int, int], mode: str) -> None:
    encoder = load_clip()
    former = encoder._preprocess.resize_mode
    encoder.__dict__.pop("_transform", None)
    try:
        encoder._preprocess.resize_mode = mode
        (row,) = encoder.encode_images([striped(size).pixels])
    finally:
        encoder._preprocess.resize_mode = former
        encoder.__dict__.pop("_transform", None)
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-3)


@cache
def load_clip() -> Any:
    return segclip.load_encoder("mini-clip")
