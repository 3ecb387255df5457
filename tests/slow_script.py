"""Run the segclip command with fake models that take their time: python -m tests.slow_script VERB
ARGUMENT...
"""

from __future__ import annotations

import time
from typing import Any

from segclip import loading
from segclip.cli import main as cli
from segclip.scoring.scorers import CropScorer
from segclip.segmenter import Segmenter
from segclip.types import Image
from tests import search_script
from tests.fakes import FakeEncoder, FakeProposer

SECONDS = 0.25  # an image


class SlowProposer(FakeProposer):
    """Take SECONDS to encode an image."""

    def encode(self, image: Image) -> Any:
        """Encode an image, slowly."""
        time.sleep(SECONDS)
        return super().encode(image)


def load(*names: Any, **options: Any) -> Segmenter:
    """Return a slow segmenter."""
    encoder = FakeEncoder()
    return Segmenter(SlowProposer(), encoder, CropScorer(encoder))


def put_fakes_in() -> None:
    """Let every segmenter of this process be a slow fake."""
    search_script.put_fakes_in()
    loading.load = load


if __name__ in ("__main__", "__mp_main__"):  # the latter is a process of a pool
    put_fakes_in()
if __name__ == "__main__":
    cli.main()
