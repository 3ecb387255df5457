"""Build random-weight networks in the real architectures that still propose a useful number of
masks.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from segclip.proposers.refiner import (
    FocusOptions,
    Refiner,
)
from segclip.proposers.yolo import quiet
from segclip.types import Image

# quality: the predicted IoU of a random network may be negative
FOCUS = FocusOptions(size=64, channels=(8, 16), joined=8, quality=-9)


def sample_image(height: int, width: int, seed: int = 0) -> Image:
    """Paint flat ellipses and boxes over a smooth background."""
    rng = np.random.default_rng(seed)
    pixels = cv2.resize(
        rng.integers(0, 256, (8, 8, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    for _ in range(40):
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        centre = int(rng.integers(0, width)), int(rng.integers(0, height))
        axes = tuple(int(rng.uniform(0.01, 0.15) * min(height, width)) + 1 for _ in range(2))
        cv2.ellipse(pixels, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
    return Image(pixels, f"picture-{seed}")


def random_network(architecture: str, *, candidates: int, seed: int = 0, size: int = 640) -> Any:
    """Make an untrained one-class SegmentationModel whose scores pass 0.4 at about ``candidates``
    places of a picture.

    Normalisation statistics are taken from pictures, so that signals survive the depth as in a
    trained network.
    """
    torch.manual_seed(seed)
    with quiet():
        from ultralytics.nn.tasks import SegmentationModel

        network = SegmentationModel(architecture, nc=1, verbose=False)
        pixels = [sample_image(size, size, seed + k).pixels for k in range(2)]
        batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
        network.task = "segment"
        norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None
        with torch.no_grad():
            network.train()(batch)
            _spread(network.eval(), batch[:1], candidates)
        for norm in norms:
            norm.momentum = 0.03
    return network


def _spread(network: Any, batch: torch.Tensor, candidates: int) -> None:
    """Rescale each level's class head to logits of deviation 1 with its share of the wanted number
    above logit(0.4).
    """
    raw = network(batch)[1]
    cells = [feature.shape[2] * feature.shape[3] for feature in raw["feats"]]
    for head, logits in zip(network.model[-1].cv3, raw["scores"][0, 0].split(cells), strict=True):
        share = max(1, round(candidates * len(logits) / sum(cells)))
        scale = 1 / logits.std()
        chosen = (logits * scale).topk(share).values[-1]
        head[-1].weight.mul_(scale)
        head[-1].bias.mul_(scale).add_(np.log(0.4 / 0.6) - chosen)


def save_checkpoint(network: Any, path: Path) -> Path:
    """Write ultralytics' own format: a pickled half-precision network among training facts."""
    torch.save(
        {"epoch": -1, "model": deepcopy(network).half(), "ema": None, "train_args": {"imgsz": 640}},
        path,
    )
    return path


def refiner(*, trained: bool = False) -> Refiner:
    """Build a random refiner; a ``trained`` one has norm statistics and a nonzero correction."""
    torch.manual_seed(0)
    network = Refiner(FOCUS)
    if trained:
        torch.nn.init.normal_(network.last.weight, std=0.5)
        with torch.no_grad():
            for _ in range(3):
                network(torch.randn(4, 7, 64, 64))
    return network.eval()
