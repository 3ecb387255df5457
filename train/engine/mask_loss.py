"""Losses of promptable masks: several candidates per object, of which only the best one learns."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def mask_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the normalised focal loss plus dice of each mask: (N, C).

    logits: (N, C, h, w). truth: shares (N, 1, h, w). Normalised as in RITM (Sofiiuk et al. 2021,
    https://arxiv.org/abs/2102.06583): with the plain focal loss small networks first learn to
    predict nothing at all, and stay there long.
    """
    truth = truth.expand_as(logits)
    share = torch.sigmoid(logits)
    weight = (share - truth).detach() ** 2
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    focal = (weight * entropy).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp(min=1)
    overlap = (2 * (share * truth).sum(dim=(2, 3)) + 1) / (
        share.sum(dim=(2, 3)) + truth.sum(dim=(2, 3)) + 1
    )
    return focal + 1 - overlap


def iou(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the IoU of masks (N, C, h, w) with shares (N, 1, h, w): (N, C)."""
    predicted, real = logits > 0, truth.expand_as(logits) > 0.5
    return (predicted & real).sum(dim=(2, 3)) / (predicted | real).sum(dim=(2, 3)).clamp(min=1)


def judge(
    logits: torch.Tensor, quality: torch.Tensor, truth: torch.Tensor, open_ones: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute the loss of N answers of four masks each: a single mask, and three alternatives.

    logits: (N, 4, h, w), the single mask first. quality: (N, 4), predicted IoU. truth: (N, 1, h,
    w). open_ones: so many of the first prompts are ambiguous: the single mask and the best of the
    other three learn, and the one rated best is the answer; for the rest only the single mask
    counts. Returns the loss (N,), the answers (N, 1, h, w) and their IoU (N,).
    """
    reached, wrong = iou(logits, truth), mask_loss(logits, truth)
    misjudged = (quality - reached).square()
    loss = wrong[:, 0] + misjudged[:, 0]
    three = wrong[:open_ones, 1:].amin(dim=1) + misjudged[:open_ones, 1:].mean(dim=1)
    loss = torch.cat([(loss[:open_ones] + three) / 2, loss[open_ones:]])
    rows, best = torch.arange(len(logits)), quality.argmax(dim=1)
    best[open_ones:] = 0
    return loss, logits[rows, best][:, None].detach(), reached[rows, best]
