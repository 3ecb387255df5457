"""The losses of crops: against the texts that mean them, a teacher's classes, and captions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

WRONG_WEIGHT = 40.0  # what all wrong texts of a crop weigh together, against 1 for the right ones


def region_loss(
    logits: torch.Tensor,
    right: torch.Tensor,
    spared: torch.Tensor,
    backgrounds: torch.Tensor,
    is_thing: torch.Tensor,
) -> torch.Tensor:
    """Score B crops against T texts and K background texts.

    logits: (B, T). right: bool (B, T), the texts that mean the crop. spared: bool (B, T), neither
    right nor wrong. backgrounds: (B, K). is_thing: bool (B,). Softmax: -log of the share of all
    right texts, among texts and the first background text (the right one of a crop that is
    nothing). Sigmoid: of each logit less the log-sum-exp of the backgrounds, as serving's softmax
    has it.
    """
    everything = torch.cat(
        [logits.masked_fill(spared, -1e4), backgrounds[:, :1]], dim=1
    )  # (B, T + 1)
    allowed = torch.cat([right, ~is_thing[:, None]], dim=1)
    named = torch.logsumexp(everything, dim=1) - torch.logsumexp(
        everything.masked_fill(~allowed, -1e4), dim=1
    )
    margin = logits - torch.logsumexp(backgrounds, dim=1, keepdim=True)  # (B, T)
    is_wrong = ~right & ~spared
    wrong = WRONG_WEIGHT * (F.softplus(margin) * is_wrong).sum(dim=1) / is_wrong.sum(dim=1)
    missed = (F.softplus(-margin) * right).sum(dim=1) / right.sum(dim=1).clamp(min=1)
    return (named + 0.5 * (missed + wrong)).mean()


def caption_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Match B photos with their captions, both ways: InfoNCE of unit rows (B, D)."""
    logits = scale * images @ texts.T
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def teacher_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor | float,
    likeliest: torch.Tensor,
    chances: torch.Tensor,
) -> torch.Tensor:
    """Let the texts of a teacher's classes be as likely as it has the classes.

    images: unit rows (B, D). texts: unit rows (C, D), of each class. likeliest, chances: (B, K),
    the teacher's likeliest classes and their probabilities; a crop with -1 has none and is left
    out.
    """
    taught = likeliest[:, 0] >= 0
    if not taught.any():
        return torch.zeros(())
    logits = scale * images[taught] @ texts.T
    found = F.log_softmax(logits, dim=1).gather(1, likeliest[taught])
    wanted = chances[taught]
    entropy = (wanted * wanted.clamp(min=1e-4).log()).sum(dim=1)
    return (entropy - (wanted * found).sum(dim=1)).mean()
