"""Shard a model over torchrun's processes: FSDP (Zhao et al. 2023), as torch's FSDP2.

Each process keeps a part of the blocks' weights, gradients and optimizer state, and gathers a block
only while it runs. Layers outside the blocks, projections and the scale, are small and stay on
every process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from segclip.errors import BadPrompt

from . import processes


def spread(model: nn.Module) -> None:
    """Shard every block and embedding table of a model; raises BadPrompt for a single process."""
    if processes.world() == 1:
        raise BadPrompt(
            "--fsdp shards a model over processes; run it with torchrun --nproc-per-node 2 or more"
        )
    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (processes.world(),))
    for block in _blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)


def _blocks(module: nn.Module) -> list[nn.Module]:
    """List the units to shard: members of lists of layers, and embedding tables."""
    if isinstance(module, nn.Embedding):
        return [module]
    if isinstance(module, nn.ModuleList | nn.Sequential):
        return [child for child in module if any(True for _ in child.parameters())]
    return [block for child in module.children() for block in _blocks(child)]


def is_spread(module: nn.Module) -> bool:
    """Return whether a module's weights are sharded."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def whole(state: Any) -> Any:
    """Gather the sharded tensors of a nested state; every process must call it."""
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, Mapping):
        return {name: whole(value) for name, value in state.items()}
    return [whole(value) for value in state] if isinstance(state, list) else state


def part(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return this process's shard of a whole tensor, if ``like`` is sharded."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def clip(parameters: Iterable[nn.Parameter], most: float) -> None:
    """Clip the joint norm of all gradients, sharded or not."""
    trained = [p for p in parameters if p.grad is not None]
    norms = [whole(nn.utils.get_total_norm([p.grad for p in group])) for group in by_kind(trained)]
    total = torch.stack(norms).norm()
    for group in by_kind(trained):
        nn.utils.clip_grads_with_norm_(group, most, total)


def by_kind(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Split parameters into whole and sharded ones; torch's functions do not accept a mixture."""
    plain: list[nn.Parameter] = []
    sharded: list[nn.Parameter] = []
    for parameter in parameters:
        (sharded if isinstance(parameter, DTensor) else plain).append(parameter)
    return [group for group in (plain, sharded) if group]
