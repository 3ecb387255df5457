"""Put easily confused images in one batch: hard negatives, among an image's nearest neighbours.

Like the strong alternates of NegCLIP (Yuksekgonul et al. 2023): images that differ in what matters,
not in everything. Neighbours are found by their captions, with the text tower a run starts with;
equal texts are not negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from segclip.types import Array

CANDIDATES = 32  # nearest texts considered for images that are not in a batch yet
ROWS = 1024  # of texts compared at a time


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Nearest texts of each text.

    texts: int64 (N,), the text of each of N images. nearest: int64 (T, K), the other texts, nearest
    first. joined: how many neighbours join an image.
    """

    texts: Array
    nearest: Array
    joined: int

    def order(self, rng: np.random.Generator) -> Array:
        """Order all images at random, each followed by its nearest unused ones: (N,)."""
        order = rng.permutation(len(self.texts))
        waiting: dict[int, list[int]] = {}
        for row in order:
            waiting.setdefault(int(self.texts[row]), []).append(int(row))
        used = np.zeros(len(order), bool)
        ordered: list[int] = []
        for row in order:
            if used[row]:
                continue
            group = [int(row)]
            used[row] = True
            for text in self.nearest[self.texts[row]]:
                if len(group) > self.joined:
                    break
                others = waiting[int(text)]
                while others and used[others[-1]]:
                    others.pop()
                if others:
                    group.append(others.pop())
                    used[group[-1]] = True
            ordered += group
        return np.array(ordered)


def nearest(embedded: Array, count: int = CANDIDATES) -> Array:
    """Return the nearest other texts of each text.

    Unit rows (T, D) to int64 (T, K), K = ``count`` or as many as there are.
    """
    rows = torch.from_numpy(embedded)
    count = min(count, len(rows) - 1)
    found = []
    for start in range(0, len(rows), ROWS):
        cosine = rows[start : start + ROWS] @ rows.T
        own = torch.arange(len(cosine))
        cosine[own, own + start] = -2.0
        found.append(cosine.topk(count, dim=1).indices)
    return torch.cat(found).numpy()
