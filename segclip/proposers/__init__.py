"""Proposers find candidate masks without any text; each is one lazily imported module."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from ..types import Image, Prompt, Proposals
from ..weights.reading import read_config

PROPOSERS: dict[str, str] = {
    "fastsam": "segclip.proposers.fastsam:FastSAM",
    "sam": "segclip.proposers.sam:SAM",
    "ultralytics_sam": "segclip.proposers.ultralytics_sam:UltralyticsSAM",
}


def loader_of(path: Path) -> str:
    """Return which of PROPOSERS reads the user's file, by its name or its folder's config.json."""
    if path.is_dir():
        config = path / "config.json"
        return "sam" if config.is_file() and "sam" in read_config(config) else "fastsam"
    if path.name.startswith(("mobile_sam", "sam2")):
        return "ultralytics_sam"
    return "sam" if path.name.startswith("sam_") or path.suffix == ".pth" else "fastsam"


class Proposer(Protocol):
    """Turn an image and a spatial prompt into class-agnostic candidate masks."""

    def encode(self, image: Image) -> Any:
        """Run the slow part, once per image; the features are opaque and for this proposer only."""
        ...

    def decode(self, features: Any, prompt: Prompt) -> Proposals:
        """Answer one prompt from ``encode``'s features.

        For ``Boxes`` row i belongs to box i; otherwise proposals are sorted, best first.
        """
        ...
