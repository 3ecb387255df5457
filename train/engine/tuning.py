"""Choose what to train: the whole model, one tower (LiT, Zhai et al. 2022), or LoRA."""

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
    """What is trained. what: one of TUNES. rank: of LoRA.

    text_lr, head_lr: learning rates of the text tower and of the projections into the joint space,
    relative to the image tower's.
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
    """Freeze what is not trained, or add LoRA layers; return the network to train."""
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
    # embeddings too, since new captions have new words
    kinds = (nn.Linear, nn.MultiheadAttention, nn.Conv2d, nn.Embedding)
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
        raise BadPrompt(f"--rank {rank} is larger than every layer of this model; lower it")
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=targets, lora_dropout=0.0, bias="none"
    )
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if name.endswith(("logit_scale", "logit_bias")):
            parameter.requires_grad = True
    return Adapted(adapted)


class Adapted(nn.Module):
    """The trained parameters of a model with LoRA layers; its state is what a run resumes from.

    peft reparametrises the weights of attention in every pass, so that its own state dict cannot be
    loaded again.
    """

    def __init__(self, adapted: nn.Module) -> None:
        super().__init__()
        self.inner = [adapted]  # in a list, so that its tensors are not registered
        trained = {
            name.replace(".", "/"): p for name, p in adapted.named_parameters() if p.requires_grad
        }
        self.trained = nn.ParameterDict(trained)

    @property
    def logit_scale(self) -> nn.Parameter:
        """Return the trained scale."""
        scale: nn.Parameter = plain(self).logit_scale
        return scale

    def train(self, mode: bool = True) -> Adapted:
        """Set the mode of the whole model."""
        self.inner[0].train(mode)
        return super().train(mode)


def _whole(network: nn.Module) -> nn.Module:
    return network.inner[0] if isinstance(network, Adapted) else network


def merged(network: nn.Module) -> nn.Module:
    """Return the plain model, LoRA layers merged into a copy; others are returned as they are."""
    if not isinstance(network, Adapted):
        return network
    plain: nn.Module = copy.deepcopy(network.inner[0]).merge_and_unload()
    return plain


def plain(network: nn.Module) -> nn.Module:
    """Return the open_clip model inside, LoRA layers not merged."""
    inner: nn.Module = (
        network.inner[0].get_base_model() if isinstance(network, Adapted) else network
    )
    return inner


def freeze_batch_norms(network: nn.Module) -> None:
    """Freeze the statistics of untrained batch norms; call it after every ``train()``."""
    for module in _whole(network).modules():
        if isinstance(module, _BATCH_NORM) and not any(
            p.requires_grad for p in module.parameters()
        ):
            module.eval()


def groups(network: nn.Module, tuning: Tuning, lr: float) -> list[dict[str, Any]]:
    """Group trained parameters by learning rate; scales and biases have no weight decay."""
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
