"""The loss of masks."""

from __future__ import annotations

import torch

from train.engine.mask_loss import iou, judge, mask_loss


def test_the_loss_falls_towards_the_truth_and_only_the_best_mask_learns() -> None:
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., 2:6, 2:6] = 1
    good, bad = 4 * (2 * truth - 1), torch.zeros(1, 1, 8, 8)
    assert (
        mask_loss(good, truth).item()
        < mask_loss(bad, truth).item()
        < mask_loss(-good, truth).item()
    )
    assert iou(good, truth).item() == 1
    logits = torch.cat([bad, bad, good, -good], dim=1).repeat(2, 1, 1, 1).requires_grad_()
    quality = torch.tensor([[0.3, 0.2, 0.1, 0.9]]).repeat(2, 1)
    loss, predicted, reached = judge(logits, quality, truth.repeat(2, 1, 1, 1), 1)
    loss.sum().backward()
    assert logits.grad is not None
    learns = [[bool(part.any()) for part in row] for row in logits.grad]
    assert learns == [[True, False, True, False], [True, False, False, False]]
    assert torch.equal(
        predicted, torch.cat([-good, bad])
    )  # what the network itself rates best; the single mask
    assert reached.tolist() == [0, 0]
