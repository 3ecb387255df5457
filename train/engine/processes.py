"""Train in one process or, under torchrun, in several with equal weights that share each batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.distributed.nn

from segclip import lifetime
from segclip.errors import BadPrompt


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started, if any. Raises BadPrompt for too few GPUs."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    # torchrun ends its processes, unless it is killed itself
    if "TORCHELASTIC_RUN_ID" in os.environ:
        lifetime.end_with_launcher("torch")
    if torch.cuda.is_available():
        here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > gpus:
            raise BadPrompt(
                f"{here} processes for {gpus} GPU{'s' * (gpus > 1)}; run one per GPU at most"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def mine(count: int) -> slice:
    """Return this process's rows of a gathered tensor, where each process gave ``count``."""
    return slice(rank() * count, (rank() + 1) * count)


def gather(rows: torch.Tensor) -> torch.Tensor:
    """Concatenate all processes' rows; gradients flow back to their origin."""
    if world() == 1:
        return rows
    if rows.requires_grad:
        return torch.cat(torch.distributed.nn.all_gather(rows))
    parts = [torch.empty_like(rows) for _ in range(world())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Average the gradients over all processes, as one buffer."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world() == 1 or not gradients:
        return
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(
        gradients, flat.div_(world()).split([g.numel() for g in gradients]), strict=True
    ):
        gradient.copy_(part.view_as(gradient))


def agree(value: float) -> float:
    """Return the first process's value in every process."""
    if world() == 1:
        return value
    shared = torch.tensor(
        [value], dtype=torch.float64, device="cuda" if torch.cuda.is_available() else "cpu"
    )
    dist.broadcast(shared, 0)
    return float(shared)
