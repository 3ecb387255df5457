"""Judge a model on held-out images and captions: recall both ways and a picture of examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import PIL.Image
import torch

from segclip.drawing import contact_sheet
from segclip.types import Array

DEPTHS = (1, 5, 10)


def recalls(similarity: Array, right: Array) -> dict[str, float]:
    """Count recall both ways; of equal ones the wrong one counts as nearer, so that a model that
    says nothing gets 0.

    similarity: (I, T). right: bool (I, T), the texts that mean an image; a text shared by images
    finds any of them.
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
    """Show for a few texts, the same every time, the five images found first; the right ones are
    ticked.
    """
    chosen = np.linspace(0, len(texts) - 1, min(count, len(texts))).round().astype(int)
    pictures, captions = [], []
    for text in chosen:
        for place, image in enumerate(np.argsort(-similarity[:, text], kind="stable")[:5]):
            pictures.append(PIL.Image.fromarray(pixels[image]).resize((160, 160)))
            mark = "right: " if right[image, text] else ""
            captions.append(
                mark + (texts[text] if place == 0 else f"{similarity[image, text]:.2f}")
            )
    return contact_sheet(pictures, captions, columns=min(5, len(pixels)), tile=220)
