"""Validate a model on held-out images and captions: recall both ways and an image of examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from open_clip.transform import image_transform_v2

from segclip.drawing import contact_sheet
from segclip.encoders import checkpoints
from segclip.scoring.crops import CropPolicy, cut
from segclip.types import Array

from ..captions.tables import CaptionItem
from .feed import CaptionTexts, captions_of, spread
from .loop import Validation

VALIDATED = 2000  # held-out images evaluated each epoch
DEPTHS = (1, 5, 10)


class HeldOut:
    """Held-out images and captions, prepared as serving does.

    items: at most VALIDATED, evenly spaced. pixels: uint8 (I, S, S, 3). right: bool (I, T), the
    texts that match an image.
    """

    def __init__(
        self,
        items: Sequence[CaptionItem],
        checkpoint: checkpoints.Checkpoint,
        tokenizer: Any,
        size: int,
    ) -> None:
        preprocess = checkpoints.preprocess_config(checkpoint, size)
        transform = image_transform_v2(preprocess, is_train=False)
        self.items = spread(items, VALIDATED)
        self.pixels = serving_pixels(self.items, transform, size, checkpoint.serving.policy)
        captions, templates = captions_of(self.items), checkpoint.serving.templates
        self.texts = CaptionTexts(captions, tokenizer, templates)
        self.right = np.zeros((len(self.items), len(self.texts.texts)), bool)
        for row, item in enumerate(self.items):
            self.right[row, self.texts.of(item)] = True

    def embed_texts(self, encode: Callable[[torch.Tensor], torch.Tensor]) -> Array:
        """Embed each text as the mean over its templates: unit rows (T, D)."""
        tokens = self.texts.tokens  # (T, K, L)
        each = in_chunks(encode, tokens.flatten(0, 1))
        texts: Array = each.reshape(*tokens.shape[:2], -1).mean(axis=1)
        return texts / np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), 1e-12)

    def judge(self, similarity: Array) -> Validation:
        """Measure the recalls of similarities (I, T), and draw examples."""
        drawn = examples(self.pixels, self.texts.texts, similarity, self.right)
        return Validation(recalls(similarity, self.right), drawn)


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


def serving_pixels(
    items: Sequence[CaptionItem], transform: Any, size: int, policy: CropPolicy
) -> Array:
    """Prepare items exactly as serving does: uint8 (N, S, S, 3).

    transform: open_clip's own, for whole images.
    """
    pixels = np.empty((len(items), size, size, 3), np.uint8)
    for row, item in enumerate(items):
        image = item.load()
        if item.region is not None:
            pixels[row] = cut(image, item.region, policy.views[0], size)[0]
            continue
        served = PIL.Image.fromarray(image.pixels)
        for step in transform.transforms[:-2]:  # all but to-tensor and normalise
            served = step(served)
        pixels[row] = np.asarray(served)
    return pixels
