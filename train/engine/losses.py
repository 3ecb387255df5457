"""Softmax and sigmoid contrastive losses over all processes' batches, with several right answers.

Softmax: symmetric InfoNCE of CLIP (Radford et al. 2021). Sigmoid: SigLIP (Zhai et al. 2023). With
one text per image they equal open_clip's ClipLoss(local_loss, gather_with_grad) and SigLipLoss to
the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from . import processes


@dataclass(frozen=True, eq=False)
class Keys:
    """Which text belongs to which image, int64.

    images: (I,). owners: (T,), the image of each text. captions: (T,), equal for equal texts.
    """

    images: torch.Tensor
    owners: torch.Tensor
    captions: torch.Tensor

    def gathered(self) -> Keys:
        """Return every process's keys."""
        return Keys(*(processes.gather(part) for part in (self.images, self.owners, self.captions)))

    def right(self) -> torch.Tensor:
        """Return the matches, bool (I, T): texts equal to one of the image's own."""
        own = self.images[:, None] == self.owners[None]
        same = self.captions[:, None] == self.captions[None]
        return (own.float() @ same.float()) > 0


@dataclass(frozen=True, eq=False)
class Scale:
    """Scale of cosines to logits: times ``scale``, already exponentiated, plus ``bias``."""

    scale: torch.Tensor
    bias: torch.Tensor | None = None

    def logits(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return scaled cosines (L, R) of unit rows."""
        logits = self.scale * left @ right.T
        return logits if self.bias is None else logits + self.bias


def softmax_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: Scale, keys: Keys
) -> torch.Tensor:
    """Contrast this process's I images and T texts with all others, in both directions.

    Several right answers share the target equally.
    """
    every_image, every_text = processes.gather(images), processes.gather(texts)
    return both_ways(scale.logits(images, every_text), scale.logits(texts, every_image), keys)


def both_ways(
    by_image: torch.Tensor, by_text: torch.Tensor, keys: Keys, *, common: int = 0
) -> torch.Tensor:
    """Return the cross entropy of this process's image rows and text rows.

    by_image: this process's images with all texts; by_text: the reverse. common: so many of the
    last texts, the same in every process, match every image.
    """
    right = keys.gathered().right().float()
    rows, columns = processes.mine(len(by_image)), processes.mine(len(by_text) - common)
    of_images = F.pad(right[rows], (0, common), value=1.0)
    of_texts = F.pad(right[:, columns].T, (0, 0, 0, common), value=1.0)
    return (
        F.cross_entropy(by_image, _shares(of_images)) + F.cross_entropy(by_text, _shares(of_texts))
    ) / 2


def sigmoid_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: Scale, keys: Keys
) -> torch.Tensor:
    """Classify each pair of this process's images and all texts independently."""
    right = keys.gathered().right()[processes.mine(len(images))]
    logits = scale.logits(images, processes.gather(texts))
    signs = right.to(logits.dtype) * 2 - 1
    return -F.logsigmoid(signs * logits).sum() / len(images)


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor, Scale, Keys], torch.Tensor]] = {
    "softmax": softmax_loss,
    "sigmoid": sigmoid_loss,
}


def _shares(right: torch.Tensor) -> torch.Tensor:
    return right / right.sum(dim=1, keepdim=True).clamp(min=1)


Encode = Callable[[slice], tuple[torch.Tensor, ...]]
Loss = Callable[..., torch.Tensor]


def cached_backward(
    network: torch.nn.Module, encode: Encode, rows: tuple[int, int], loss: Loss
) -> torch.Tensor:
    """Backpropagate one large batch in pieces (Gao et al. 2021, gradient caching); return its loss.

    encode: embeds the rows of a slice. loss: of all rows' embeddings. rows: the number of rows, and
    how many at a time. Exact except for batch norms, whose statistics are those of each piece;
    dropout repeats itself in both passes.
    """
    count, size = rows
    pieces = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    states, embedded = [], []
    with torch.no_grad(), _unmoved(network):
        for piece in pieces:
            states.append(torch.get_rng_state())
            embedded.append(encode(piece))
    leaves = [torch.cat(parts).detach().requires_grad_() for parts in zip(*embedded, strict=True)]
    value = loss(*leaves)
    value.backward()
    ends = [0] * len(leaves)
    for piece, state, parts in zip(pieces, states, embedded, strict=True):
        torch.set_rng_state(state)
        gradients = []
        for column, (leaf, part) in enumerate(zip(leaves, parts, strict=True)):
            assert leaf.grad is not None
            gradients.append(leaf.grad[ends[column] : ends[column] + len(part)])
            ends[column] += len(part)
        moved = [
            (rows, slope)
            for rows, slope in zip(encode(piece), gradients, strict=True)
            if rows.requires_grad
        ]
        torch.autograd.backward([rows for rows, _ in moved], [slope for _, slope in moved])
    return value.detach()


@contextmanager
def _unmoved(network: torch.nn.Module) -> Iterator[None]:
    """Freeze the running means of batch norms."""
    norms = [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
