"""Draw crops of each source for the steps of ``train.region_text``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from segclip.types import Array

from ..region_features import FeatureTable
from .crop_store import WRONG


@dataclass(frozen=True, eq=False)
class RegionBatch:
    """One step's crops.

    features: (B, CHANNELS, S / 16, S / 16). labels: (B,), or BACKGROUND, UNLABELLED, WRONG.
    captioned: so many of the last are photos with captions. likeliest, chances: (B, K), the
    teacher's; -1 without one.
    """

    features: torch.Tensor
    labels: torch.Tensor
    captioned: int
    likeliest: torch.Tensor
    chances: torch.Tensor


class RegionFeed:
    """Draw rows of one source, names in proportion to the square root of their frequency."""

    def __init__(self, table: FeatureTable, rng: np.random.Generator) -> None:
        self.table, self.rng, self.labels = table, rng, np.array(table.labels)
        _, group, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
        weights = 1 / np.sqrt(counts[group])
        weights[self.labels < 0] = weights.max()
        wrong = self.labels == WRONG
        if wrong.any():  # twice as often as the proposer's correct candidates
            weights[wrong] = 2 * weights[self.labels >= 0].sum() / wrong.sum()
        self.weights = weights / weights.sum()
        self.waiting: list[int] = []

    def take(self, count: int) -> Array:
        """Return the next rows."""
        if len(self.waiting) < count:
            self.waiting = list(self.rng.choice(len(self.labels), len(self.labels), p=self.weights))
        rows, self.waiting = self.waiting[:count], self.waiting[count:]
        return np.sort(np.array(rows))
