"""SAM's folder: its network, its refiner, its settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from segclip.proposers import sam
from segclip.proposers.edges import EdgeOptions
from segclip.proposers.promptable import SAMOptions
from segclip.proposers.trunk import Trunk
from segclip.types import Boxes, Points
from tests.networks import FOCUS, refiner, sample_image


def test_a_refiner_is_stored_with_the_network_and_used_only_if_enabled(tmp_path: Path) -> None:
    torch.manual_seed(0)
    architecture = sam.Architecture(160, 16, Trunk(), 16, 4, 1, 16, 16, decoder_heads=2)
    sam.save(architecture.build(), architecture, tmp_path)
    plain = sam.SAM(tmp_path)
    sam.add_refiner(tmp_path, refiner(trained=True), EdgeOptions(radius=5))
    stored, without = sam.SAM(tmp_path), sam.SAM(tmp_path, options=SAMOptions())
    assert (stored.options.focus, stored.options.edges) == (FOCUS, EdgeOptions(radius=5))
    image = sample_image(120, 160)
    for prompt in (Points([(50, 60)]), Boxes([(20, 30, 90, 80), (5, 5, 100, 100)])):
        first, second, third = (s.decode(s.encode(image), prompt) for s in (plain, without, stored))
        assert len(first) == len(second) == len(third) > 0
        for row in range(len(first)):
            assert np.array_equal(first.masks.full(row), second.masks.full(row))
        assert any(
            not np.array_equal(first.masks.full(row), third.masks.full(row))
            for row in range(len(first))
        )
