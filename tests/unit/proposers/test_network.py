"""Coordinates go to a network's frame, and prompts in batches that fit the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from segclip.proposers.logits import Axis
from segclip.proposers.network import Clicks, Network
from segclip.types import Array, Image


class Halved(Network):
    """A network whose frame is a quarter as wide and half as high as the image."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)

    def embed(self, pixels: Array) -> Any:
        return pixels.mean()

    def predict(
        self, maps: Any, clicks: Clicks, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError

    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        return 0.25, 0.5

    def axes(self, size: tuple[int, int]) -> tuple[Axis, Axis]:
        return Axis.through(4, [size[0]]), Axis.through(4, [size[1]])


def test_an_image_is_encoded_with_the_way_back_to_its_pixels() -> None:
    image = Image(np.full((8, 12, 3), 7, np.uint8))
    features = Halved().encode(image)
    assert features.maps == 7
    assert features.image is image
    assert features.sampler.mask(np.ones((4, 4), np.float32), (0, 0, 12, 8)).shape == (8, 12)


def test_coordinates_keep_their_order_and_become_float32() -> None:
    corners = np.array([[[4, 4], [8, 2]]])
    framed = Halved().to_frame(corners, (8, 12))
    assert framed.dtype == torch.float32
    assert framed.tolist() == [[[1, 2], [2, 1]]]
    assert Halved().to_frame(np.zeros((0, 2)), (8, 12)).shape == (0, 2)


def test_a_cpu_decodes_few_prompts_at_a_time() -> None:
    assert [Halved().batch_size(most) for most in (1, 64)] == [1, 4]
    assert Halved("meta").batch_size(64) == 64
