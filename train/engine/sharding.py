"""Spread a model over the processes of torchrun: fully sharded data parallel (Zhao et al. 2023),
torch's FSDP2.

Each process keeps a part of the blocks' weights, gradients and optimiser, and has a block whole
only while it runs. What lies outside blocks, projections and the scale, is small and stays on every
process.
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
    """Spread every block and embedding table of a model; raises BadPrompt in a process that is
    alone.
    """
    if processes.world() == 1:
        raise BadPrompt(
            "--fsdp spreads a model over processes; start it with torchrun --nproc-per-node 2 or "
            "more"
        )
    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (processes.world(),))
    for block in _blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)


def _blocks(module: nn.Module) -> list[nn.Module]:
    """List what is called as a whole: the members of lists of layers, and embedding tables."""
    if isinstance(module, nn.Embedding):
        return [module]
    if isinstance(module, nn.ModuleList | nn.Sequential):
        return [child for child in module if any(True for _ in child.parameters())]
    return [block for child in module.children() for block in _blocks(child)]


def is_spread(module: nn.Module) -> bool:
    """Tell whether a module's weights are spread."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def whole(state: Any) -> Any:
    """Gather a nested state's tensors from all processes, each of which must ask; what is not
    spread stays as it is.
    """
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, Mapping):
        return {name: whole(value) for name, value in state.items()}
    return [whole(value) for value in state] if isinstance(state, list) else state


def part(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Take this process's part of a whole tensor, where ``like`` is spread."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def clip(parameters: Iterable[nn.Parameter], most: float) -> None:
    """Clip the norm of all gradients together, spread and whole ones."""
    trained = [p for p in parameters if p.grad is not None]
    norms = [whole(nn.utils.get_total_norm([p.grad for p in group])) for group in by_kind(trained)]
    total = torch.stack(norms).norm()
    for group in by_kind(trained):
        nn.utils.clip_grads_with_norm_(group, most, total)


def by_kind(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Part parameters into those on every process and those that are spread; torch takes no
    mixture.
    """
    here: list[nn.Parameter] = []
    apart: list[nn.Parameter] = []
    for parameter in parameters:
        (apart if isinstance(parameter, DTensor) else here).append(parameter)
    return [group for group in (here, apart) if group]
