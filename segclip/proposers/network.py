"""Interface of a promptable network: encode an image once, then decode prompts to mask logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..types import Array, Image
from .logits import Axis, Sampler

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of RGB in 0 to 255, ImageNet's
_CPU_BATCH = 4  # prompts that fit a CPU's cache while decoded; 8 at a time take a third longer each


@dataclass(frozen=True, eq=False)
class Features:
    """An encoded image.

    maps: the network's own features. image: the source, which deeper layers of the grid crop.
    sampler: from the decoder's logits to the image's pixels.
    """

    maps: Any
    image: Image
    sampler: Sampler


@dataclass(frozen=True, eq=False)
class Clicks:
    """B prompts in the network's frame; parts that are not given are None.

    points: float32 (B, K, 2). labels: int32 (B, K). boxes: float32 (B, 4). masks: float32
    (B, 1, h, w).
    """

    points: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    boxes: torch.Tensor | None = None
    masks: torch.Tensor | None = None

    def encoded(self, encoder: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Run a prompt encoder of segment-anything's interface: its tokens and dense embedding."""
        points = None if self.points is None else (self.points, self.labels)
        sparse, dense = encoder(points=points, boxes=self.boxes, masks=self.masks)
        return sparse, dense


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
        """Decode B prompts: logits float32 (B, C, h, w) and predicted IoU float32 (B, C).

        C is 1, or with ``multimask`` the number of masks of the network: 3 for SAM, 4 for mini-sam.
        """

    @abstractmethod
    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return the factors of x and y from an image of ``size`` (H, W) to the network's frame."""

    @abstractmethod
    def axes(self, size: tuple[int, int]) -> tuple[Axis, Axis]:
        """Map the decoder's logits to an image of ``size`` (H, W): rows, columns."""

    def batch_size(self, most: int) -> int:
        """Return how many prompts to decode at a time: ``most``, but fewer on a CPU."""
        return min(most, _CPU_BATCH) if self.device.type == "cpu" else most

    def to_frame(self, coordinates: Array, size: tuple[int, int]) -> torch.Tensor:
        """Scale coordinates (..., 2) of an image of ``size`` to the network's frame, float32."""
        scaled = coordinates.astype(np.float64) * np.array(self.scale(size))
        return torch.from_numpy(scaled.astype(np.float32)).to(self.device)
