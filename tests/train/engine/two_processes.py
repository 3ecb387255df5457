"""Compare losses of two processes with open_clip's and with one process's; run by torchrun."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from open_clip.loss import ClipLoss, SigLipLoss

from train.engine import processes
from train.engine.losses import Keys, Scale, sigmoid_loss, softmax_loss


def towers() -> torch.nn.ParameterList:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(8, 16, generator=generator), torch.randn(6, 16, generator=generator)]
    return torch.nn.ParameterList([*weights, torch.tensor(2.0), torch.tensor(-3.0)])


def main() -> None:
    with processes.joined():
        rank, world = processes.rank(), processes.world()
        generator = torch.Generator().manual_seed(1)
        pixels, tokens = (
            torch.randn(12, 8, generator=generator),
            torch.randn(12, 6, generator=generator),
        )
        part = processes.mine(6)
        rows = torch.arange(12)
        for kind in ("softmax", "sigmoid"):
            found = []
            for which in ("ours", "theirs", "alone"):
                image, text, scale, bias = net = towers()
                some = slice(0, 12) if which == "alone" else part
                images, texts = (
                    F.normalize(pixels[some] @ image, dim=-1),
                    F.normalize(tokens[some] @ text, dim=-1),
                )
                keys = Keys(rows[some], rows[some], rows[some])
                if which == "theirs" and kind == "softmax":
                    plain = ClipLoss(
                        local_loss=True, gather_with_grad=True, rank=rank, world_size=world
                    )
                    loss = plain(images, texts, scale.exp())
                elif which == "theirs":
                    loss = SigLipLoss(rank=rank, world_size=world)(images, texts, scale.exp(), bias)
                elif which == "ours":
                    ours = softmax_loss if kind == "softmax" else sigmoid_loss
                    loss = ours(
                        images, texts, Scale(scale.exp(), bias if kind == "sigmoid" else None), keys
                    )
                else:
                    plain = ClipLoss() if kind == "softmax" else SigLipLoss()
                    more = {"logit_bias": bias} if kind == "sigmoid" else {}
                    loss = plain(images, texts, scale.exp(), **more)
                loss.backward()
                if which != "alone":
                    processes.average_gradients(net.parameters())
                    total = loss.detach().clone()
                    dist.all_reduce(total)
                    loss = total / world
                found.append(
                    [loss.detach(), *(p.grad for p in net.parameters() if p.grad is not None)]
                )
            for ours_, theirs, alone in zip(*found, strict=True):
                torch.testing.assert_close(ours_, theirs, atol=1e-5, rtol=0)
                torch.testing.assert_close(ours_, alone, atol=1e-5, rtol=1e-5)
            if rank == 0:
                print("equal", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
