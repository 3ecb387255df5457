"""Losses equal open_clip's with one text per image, on one process and two.

Gradients of pieces equal those of the whole batch.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss, SigLipLoss

from train.engine.losses import Keys, Scale, cached_backward, sigmoid_loss, softmax_loss

ROOT = Path(__file__).parents[3]


def one_each(count: int) -> Keys:
    rows = torch.arange(count)
    return Keys(rows, rows, rows + 100)


def rows(seed: int, count: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 16, generator=generator), dim=-1).requires_grad_()


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_one_text_an_image_is_open_clips_own_loss(kind: str) -> None:
    images, texts, scale = rows(0), rows(1), torch.tensor(14.0, requires_grad=True)
    bias = torch.tensor(-3.0, requires_grad=True)
    if kind == "softmax":
        ours = softmax_loss(images, texts, Scale(scale), one_each(12))
        theirs = ClipLoss()(images, texts, scale)
    else:
        ours = sigmoid_loss(images, texts, Scale(scale, bias), one_each(12))
        theirs = SigLipLoss()(images, texts, scale, bias)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    wanted = torch.autograd.grad(theirs, [images, texts, scale])
    for mine, other in zip(torch.autograd.grad(ours, [images, texts, scale]), wanted, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)


def test_texts_of_one_image_and_equal_texts_are_right_together() -> None:
    keys = Keys(torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1, 2]), torch.tensor([5, 6, 7, 5]))
    wanted = [[1, 1, 0, 1], [0, 0, 1, 0], [1, 0, 0, 1]]
    assert keys.right().int().tolist() == wanted


def test_right_texts_do_not_push_each_other_away() -> None:
    images, texts = rows(0, 2), rows(1, 4)
    keys = Keys(torch.tensor([0, 1]), torch.tensor([0, 0, 1, 1]), torch.arange(4))
    together = images.detach().repeat_interleave(2, dim=0)
    perfect = softmax_loss(images.detach(), together, Scale(torch.tensor(100.0)), keys)
    # two texts share each image
    assert float(perfect) == pytest.approx(0.5 * torch.log(torch.tensor(2.0)).item(), abs=1e-3)
    assert softmax_loss(images, texts, Scale(torch.tensor(100.0)), keys) > perfect


class Towers(torch.nn.Module):
    """Two towers with dropout, so that a piece must repeat its noise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.image = torch.nn.Sequential(
            torch.nn.Linear(8, 32), torch.nn.GELU(), torch.nn.Dropout(0.3), torch.nn.Linear(32, 16)
        )
        self.text = torch.nn.Linear(6, 16)
        self.scale = torch.nn.Parameter(torch.tensor(2.0))


@pytest.mark.parametrize("dropout", [False, True])
def test_pieces_give_the_gradients_of_the_whole(dropout: bool) -> None:
    towers = Towers().train(dropout)
    pixels, tokens = torch.randn(20, 8), torch.randn(20, 6)

    def embed(part: slice) -> tuple[torch.Tensor, ...]:
        return F.normalize(towers.image(pixels[part]), dim=-1), F.normalize(
            towers.text(tokens[part]), dim=-1
        )

    def compare(images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        return softmax_loss(images, texts, Scale(towers.scale.exp()), one_each(20))

    def gradients() -> list[torch.Tensor]:
        found = [p.grad.clone() for p in towers.parameters() if p.grad is not None]
        towers.zero_grad(set_to_none=True)
        return found

    torch.manual_seed(5)
    pieces = [embed(slice(start, min(start + 6, 20))) for start in range(0, 20, 6)]
    whole = compare(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))
    whole.backward()
    wanted = gradients()
    torch.manual_seed(5)
    value = cached_backward(towers, embed, (20, 6), compare)
    torch.testing.assert_close(value, whole.detach(), atol=1e-5, rtol=0)
    for mine, other in zip(gradients(), wanted, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)


def test_two_processes_agree_with_open_clip_and_with_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    command = [sys.executable, *launch, "-m", "tests.train.engine.two_processes"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, check=False, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("equal") == 2
