"""The losses of crops against texts, captions and a teacher's classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from train.regions.losses import caption_loss, region_loss

NOTHING = torch.zeros(1, 2, dtype=torch.bool)


def test_the_loss_falls_when_the_right_text_rises_and_a_wrong_one_falls() -> None:
    right, thing, backgrounds = (
        torch.tensor([[True, False]]),
        torch.tensor([True]),
        torch.zeros(1, 2),
    )
    before = region_loss(torch.tensor([[1.0, 1.0]]), right, NOTHING, backgrounds, thing)
    assert region_loss(torch.tensor([[2.0, 1.0]]), right, NOTHING, backgrounds, thing) < before
    assert region_loss(torch.tensor([[1.0, 0.0]]), right, NOTHING, backgrounds, thing) < before


def test_a_spared_text_changes_nothing() -> None:
    right, spared = torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]])
    losses = [
        region_loss(
            torch.tensor([[1.0, logit, 0.5]]),
            right,
            spared,
            torch.zeros(1, 2),
            torch.tensor([True]),
        )
        for logit in (-3.0, 9.0)
    ]
    assert losses[0] == pytest.approx(float(losses[1]))


def test_two_right_texts_do_not_push_each_other_away() -> None:
    logits = torch.tensor([[5.0, 5.0, -5.0]], requires_grad=True)
    right = torch.tensor([[True, True, False]])
    spared = torch.zeros(1, 3, dtype=torch.bool)
    region_loss(logits, right, spared, torch.zeros(1, 2), torch.tensor([True])).backward()
    assert logits.grad is not None
    assert (logits.grad[0, :2] <= 0).all()


def test_a_piece_of_background_should_be_called_background() -> None:
    logits, nothing = torch.tensor([[1.0, 1.0]]), torch.tensor([False])
    low = region_loss(logits, NOTHING, NOTHING, torch.tensor([[0.0, 0.0]]), nothing)
    high = region_loss(logits, NOTHING, NOTHING, torch.tensor([[4.0, 0.0]]), nothing)
    assert high < low


def test_the_sigmoid_is_the_softmax_of_serving() -> None:
    """-log sigmoid(logit - logsumexp(backgrounds)) is -log of serving's probability."""
    logit, others = 1.3, np.array([0.2, -0.7])
    serving = np.exp(logit) / (np.exp(logit) + np.exp(others).sum())
    margin = logit - np.log(np.exp(others).sum())
    assert np.log1p(np.exp(-margin)) == pytest.approx(-np.log(serving))


def test_captions_match_their_photos() -> None:
    photos = F.normalize(torch.eye(3, 8), dim=-1)
    own = caption_loss(photos, photos, torch.tensor(10.0))
    other = caption_loss(photos, photos.roll(1, 0), torch.tensor(10.0))
    assert own < 0.01 < other
