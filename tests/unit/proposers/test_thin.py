"""Fault 17.14: images too thin for a network's frame work everywhere, with the shipped models."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

import segclip
from tests.thin import LONGEST, SIZES, striped

load_picker = cache(segclip.load_picker)


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


@cache
def load_clip() -> Any:
    return segclip.load_encoder("mini-clip")
