"""Choose what of a model is trained: all of it, one tower (LiT, Zhai et al. 2022), or low-rank
additions (LoRA).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from segclip.errors import BadPrompt, UnknownName, Unsupported

from . import limits

TUNES = ("full", "image", "text", "lora")
_BATCH_NORM = torch.nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Tuning:
    """Say what is trained. what: one of TUNES. rank: of LoRA. text_lr, head_lr: rates of the text
    tower and of the projections into the joint space, as multiples of the image tower's.
    """

    what: str = "full"
    rank: int = 8
    text_lr: float = 1.0
    head_lr: float = 1.0

    def __post_init__(self) -> None:
        if self.what not in TUNES:
            raise UnknownName(f"unknown tuning {self.what!r}; choose one of {', '.join(TUNES)}")
        limits.check(
            {
                "--rank": (self.rank, limits.COUNT),
                "--text-lr": (self.text_lr, limits.FACTOR),
                "--head-lr": (self.head_lr, limits.FACTOR),
            }
        )


def prepare(model: nn.Module, tuning: Tuning) -> nn.Module:
    """Freeze what is not trained, or put LoRA's layers in; gives the network the loop trains."""
    for name, parameter in model.named_parameters():
        visual = name.startswith("visual.")
        shared = name in ("logit_scale", "logit_bias")
        frozen = {"full": False, "image": not visual, "text": visual, "lora": True}[tuning.what]
        parameter.requires_grad = parameter.requires_grad and (shared or not frozen)
    return _with_lora(model, tuning.rank) if tuning.what == "lora" else model


def _with_lora(model: nn.Module, rank: int) -> nn.Module:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise Unsupported("--tune lora needs peft: pip install 'segclip[train]'") from None
    kinds = (
        nn.Linear,
        nn.MultiheadAttention,
        nn.Conv2d,
        nn.Embedding,
    )  # of words too: the new captions bring others
    inside = {
        f"{name}."
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    }
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, kinds)
        and not name.startswith(tuple(inside))
        and getattr(module, "groups", 1) == 1
        and (isinstance(module, nn.MultiheadAttention) or min(module.weight.shape[:2]) >= rank)
    ]
    if not targets:
        raise BadPrompt(f"--rank {rank} is above the sides of every layer of this model; lower it")
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=targets, lora_dropout=0.0, bias="none"
    )
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if name.endswith(("logit_scale", "logit_bias")):
            parameter.requires_grad = True
    return Adapted(adapted)


class Adapted(nn.Module):
    """Hold what is trained of a model with LoRA's layers, and nothing else: its state is what a run
    goes on from.

    peft takes the weights of attention apart in every pass, so that its own state dict cannot be
    loaded again.
    """

    def __init__(self, adapted: nn.Module) -> None:
        super().__init__()
        self.inner = [adapted]  # in a list: none of its tensors are this module's
        trained = {
            name.replace(".", "/"): p for name, p in adapted.named_parameters() if p.requires_grad
        }
        self.trained = nn.ParameterDict(trained)

    @property
    def logit_scale(self) -> nn.Parameter:
        """Give the scale that is trained."""
        scale: nn.Parameter = plain(self).logit_scale
        return scale

    def train(self, mode: bool = True) -> Adapted:
        """Switch the whole model."""
        self.inner[0].train(mode)
        return super().train(mode)


def _whole(network: nn.Module) -> nn.Module:
    return network.inner[0] if isinstance(network, Adapted) else network


def merged(network: nn.Module) -> nn.Module:
    """Give the plain model: LoRA's layers added into the weights of a copy; a model without them as
    it is.
    """
    if not isinstance(network, Adapted):
        return network
    plain: nn.Module = copy.deepcopy(network.inner[0]).merge_and_unload()
    return plain


def plain(network: nn.Module) -> nn.Module:
    """Give the open_clip model inside, LoRA's layers still apart."""
    inner: nn.Module = (
        network.inner[0].get_base_model() if isinstance(network, Adapted) else network
    )
    return inner


def hold_still(network: nn.Module) -> None:
    """Keep the statistics of batch norms that are not trained; to be called after every
    ``train()``.
    """
    for module in _whole(network).modules():
        if isinstance(module, _BATCH_NORM) and not any(
            p.requires_grad for p in module.parameters()
        ):
            module.eval()


def groups(network: nn.Module, tuning: Tuning, lr: float) -> list[dict[str, Any]]:
    """Group what is trained by tower, with its rate; scales and biases do not decay."""
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in _whole(network).named_parameters():
        if parameter.requires_grad:
            head = (
                "proj" in name
                and "c_proj" not in name
                and "attn" not in name
                and "out_proj" not in name
            )
            tower = 1.0 if "visual." in name else tuning.text_lr
            rate = lr * (tuning.head_lr if head or ".head." in name else tower)
            found.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    decayed = [{"params": part, "lr": rate} for (rate, decays), part in found.items() if decays]
    return decayed + [
        {"params": part, "lr": rate, "weight_decay": 0.0}
        for (rate, decays), part in found.items()
        if not decays
    ]
