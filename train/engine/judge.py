"""Validate a model on held-out images and captions: recall both ways and an image of examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import PIL.Image
import torch

from segclip.drawing import contact_sheet
from segclip.types import Array

DEPTHS = (1, 5, 10)


def recalls(similarity: Array, right: Array) -> dict[str, float]:
    """Compute recall in both directions.

    similarity: (I, T). right: bool (I, T), the texts that match an image; a text shared by several
    images may find any of them. Ties count as misses, so that constant embeddings score 0.
    """
    figures = {}
    for name, table, truth in (
        ("image to text", similarity, right),
        ("text to image", similarity.T, right.T),
    ):
        best = np.where(truth, table, -np.inf).max(axis=1, keepdims=True)
        rank = ((table >= best) & ~truth).sum(axis=1)
        for depth in DEPTHS:
            figures[f"{name} R@{depth}"] = float(np.mean(rank < depth))
    figures["R@1"] = (figures["image to text R@1"] + figures["text to image R@1"]) / 2
    return figures


def in_chunks(
    encode: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor, size: int = 256
) -> Array:
    """Embed rows in chunks: float32 (N, D)."""
    with torch.no_grad():  # not inference mode: LoRA trains on with tensors made here
        parts = [
            encode(rows[start : start + size]).float().cpu() for start in range(0, len(rows), size)
        ]
    return torch.cat(parts).numpy()


def examples(
    pixels: Array, texts: Sequence[str], similarity: Array, right: Array, *, count: int = 4
) -> PIL.Image.Image:
    """Draw the five best images for a few texts, always the same; correct ones are marked."""
    chosen = np.linspace(0, len(texts) - 1, min(count, len(texts))).round().astype(int)
    images, captions = [], []
    for text in chosen:
        for place, row in enumerate(np.argsort(-similarity[:, text], kind="stable")[:5]):
            images.append(PIL.Image.fromarray(pixels[row]).resize((160, 160)))
            mark = "right: " if right[row, text] else ""
            captions.append(mark + (texts[text] if place == 0 else f"{similarity[row, text]:.2f}"))
    return contact_sheet(images, captions, columns=min(5, len(pixels)), tile=220)
