"""A patch head begins as the CLIP's own projection."""

from __future__ import annotations

import torch

from segclip.encoders import patches
from tests.train.test_pacl import head_of
from train.engine.start import fresh


def test_an_untrained_head_is_the_clip_itself() -> None:
    start = fresh("small")
    tower, pixels = start.model.visual.eval(), torch.randn(2, 3, 64, 64)
    head = head_of(start, 512)
    with torch.no_grad():
        # average pooling and W1 commute
        pooled = head.straight(patches.encode(tower, pixels).mean(dim=(1, 2)))
        torch.testing.assert_close(pooled, tower(pixels), atol=1e-5, rtol=1e-4)
