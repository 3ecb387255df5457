"""Proposers find candidate masks without any text; each lives in one lazily imported file."""

from __future__ import annotations

from typing import Any, Protocol

from ..types import Image, Prompt, Proposals

PROPOSERS: dict[str, str] = {"fastsam": "segclip.proposers.fastsam:FastSAM"}


class Proposer(Protocol):
    """Turn an image and a spatial prompt into class-agnostic candidate masks."""

    def encode(self, image: Image) -> Any:
        """Run the heavy half, once an image; the answer is opaque and belongs to this proposer."""
        ...

    def decode(self, features: Any, prompt: Prompt) -> Proposals:
        """Answer one prompt from ``encode``'s features; row i answers box i of ``Boxes``, otherwise best first."""
        ...
