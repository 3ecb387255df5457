"""Put what is easily confused in one batch: hard negatives, from among an image's nearest
neighbours.

Like the strong alternates of NegCLIP (Yuksekgonul et al. 2023): images that differ in what matters,
not in everything. What is said of them tells who is near, by the text tower a run starts with;
equal texts are no negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from segclip.types import Array

CANDIDATES = 32  # nearest texts that are looked at for images that are not in a batch yet
ROWS = 1024  # of texts compared at a time


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Hold what is near what. texts: int64 (N,), the text of each of N images. nearest: int64 (T,
    K), for each text others, nearest first. joined: how many neighbours an image brings along.
    """

    texts: Array
    nearest: Array
    joined: int

    def order(self, rng: np.random.Generator) -> Array:
        """Go through all images once, at random, each followed by its nearest ones that have not
        been yet: (N,).
        """
        order = rng.permutation(len(self.texts))
        waiting: dict[int, list[int]] = {}
        for row in order:
            waiting.setdefault(int(self.texts[row]), []).append(int(row))
        gone = np.zeros(len(order), bool)
        told: list[int] = []
        for row in order:
            if gone[row]:
                continue
            group = [int(row)]
            gone[row] = True
            for text in self.nearest[self.texts[row]]:
                if len(group) > self.joined:
                    break
                others = waiting[int(text)]
                while others and gone[others[-1]]:
                    others.pop()
                if others:
                    group.append(others.pop())
                    gone[group[-1]] = True
            told += group
        return np.array(told)


def nearest(embedded: Array, count: int = CANDIDATES) -> Array:
    """Give each text's nearest others: unit rows (T, D) to int64 (T, K), fewer than ``count`` where
    there are fewer.
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
