"""Proposers find candidate masks without any text; each lives in one lazily imported file."""

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
    """Tell by its name, or a folder's config.json, which of PROPOSERS reads a file of the user's
    own.
    """
    if path.is_dir():
        config = path / "config.json"
        return "sam" if config.is_file() and "sam" in read_config(config) else "fastsam"
    if path.name.startswith(("mobile_sam", "sam2")):
        return "ultralytics_sam"
    return "sam" if path.name.startswith("sam_") or path.suffix == ".pth" else "fastsam"


class Proposer(Protocol):
    """Turn an image and a spatial prompt into class-agnostic candidate masks."""

    def encode(self, image: Image) -> Any:
        """Run the heavy half, once an image; the answer is opaque and belongs to this proposer."""
        ...

    def decode(self, features: Any, prompt: Prompt) -> Proposals:
        """Answer one prompt from ``encode``'s features; row i answers box i of ``Boxes``, otherwise
        best first.
        """
        ...
