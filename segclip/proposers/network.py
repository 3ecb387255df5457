"""The seam between a promptable network and the prompts it answers: image in once, clicks in and
logits out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..types import Array, Image
from .logits import Axis, Sampler


@dataclass(frozen=True, eq=False)
class Features:
    """Hold what the image encoder made of an image.

    maps: the network's own. image: the image, of which deeper layers of the grid look at crops.
    sampler: from the decoder's logits to the image's pixels.
    """

    maps: Any
    image: Image
    sampler: Sampler


@dataclass(frozen=True, eq=False)
class Clicks:
    """Hold B prompts in the network's frame; what is None is not said.

    points: float32 (B, K, 2). labels: int32 (B, K). boxes: float32 (B, 4). masks: float32 (B, 1, h,
    w).
    """

    points: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    boxes: torch.Tensor | None = None
    masks: torch.Tensor | None = None


_CACHED = (
    4  # prompts whose decoding stays in a CPU's cache; 8 at a time take a third longer for each
)


class Network(ABC):
    """Encode an image once, decode prompts in milliseconds."""

    device: torch.device

    def encode(self, image: Image) -> Features:
        """Run the image encoder."""
        return Features(self.embed(image.pixels), image, Sampler(*self.axes(image.size)))

    @abstractmethod
    def embed(self, pixels: Array) -> Any:
        """Run the image encoder on uint8 (H, W, 3) pixels."""

    @abstractmethod
    def predict(
        self, maps: Any, clicks: Clicks, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode B prompts: logits float32 (B, C, h, w) and predicted IoU float32 (B, C), C being 1
        or the several of a network, 3 of SAM and 4 of mini-sam.
        """

    @abstractmethod
    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        """Give what x and y of an image of ``size`` (H, W) are multiplied with to reach the
        network's frame.
        """

    @abstractmethod
    def axes(self, size: tuple[int, int]) -> tuple[Axis, Axis]:
        """Lay the decoder's logits over an image of ``size`` (H, W): rows, columns."""

    def together(self, most: int) -> int:
        """Give how many prompts to decode at a time: ``most``, but fewer on a CPU."""
        return min(most, _CACHED) if self.device.type == "cpu" else most

    def framed(self, coordinates: Array, size: tuple[int, int]) -> torch.Tensor:
        """Bring coordinates (..., 2) of an image of ``size`` to the network's frame, float32."""
        moved = coordinates.astype(np.float64) * np.array(self.scale(size))
        return torch.from_numpy(moved.astype(np.float32)).to(self.device)
