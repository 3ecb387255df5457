"""The head that ships: classes of a classifier beside the units of a trained head."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from segclip.encoders import checkpoints

from .model import EMBED, SHIPPED, WIDE

SILENT = 5.0  # of a class's logit, what has no effect: of an image's 1,000 logits few are larger
CLASSIFIER = 0.25  # length of the classes' part of an embedding at the start, over the old head's


class Head(torch.nn.Module):
    """Map a trunk's features (B, 1280) to the joint space, (B, EMBED)."""

    def __init__(self, first: torch.nn.Linear, second: torch.nn.Linear) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return rows that are not of length one yet."""
        out: torch.Tensor = self.second(F.gelu(self.first(features)))
        return out


def widen(
    mlp: Any, classifier: torch.nn.Linear, names: torch.Tensor, features: torch.Tensor, units: int
) -> Head:
    """Put a classifier's classes beside the most used units of a head of two layers.

    names: (K, D), the embedded name of each class. features: (R, 1280) of things, to see which
    units are used. units: of the new head, more than K. Raises ValueError where there is no room
    for the classes.
    """
    room = units - len(names)
    if room <= 0:
        raise ValueError(f"{units} units have no room for {len(names)} classes")
    with torch.no_grad():
        before = F.gelu(mlp.fc1(features))  # (R, U)
        used = before.abs().mean(dim=0) * mlp.fc2.weight.norm(dim=0)
        kept = used.topk(min(room, len(used))).indices.sort().values
        known = F.gelu(classifier(features) - SILENT) @ names  # (R, D)
        share = CLASSIFIER * mlp.fc2(before).norm(dim=1).mean() / known.norm(dim=1).mean()
        weights = torch.cat([mlp.fc1.weight[kept], classifier.weight])
        biases = torch.cat([mlp.fc1.bias[kept], classifier.bias - SILENT])
        first = torch.nn.Linear(weights.shape[1], units)
        second = torch.nn.Linear(units, names.shape[1], bias=False)
        for layer in (first.weight, first.bias, second.weight):
            layer.zero_()
        first.weight[: len(weights)], first.bias[: len(weights)] = weights, biases
        second.weight[:, : len(weights)] = torch.cat(
            [mlp.fc2.weight[:, kept], share * names.T], dim=1
        )
    return Head(first, second)


def shipped(model: Any, head: Head) -> Any:
    """Build the model that ships: ``model``'s towers and the head, padded with zeros to WIDE."""
    wide = checkpoints.make_model(SHIPPED)
    state = model.state_dict()
    weight = torch.zeros(WIDE, head.second.weight.shape[1])
    weight[:EMBED] = head.second.weight.detach()
    projection = torch.zeros(state["text_projection"].shape[0], WIDE)
    projection[:, :EMBED] = state["text_projection"]
    own = {
        "visual.head.mlp.fc1.weight": head.first.weight.detach(),
        "visual.head.mlp.fc1.bias": head.first.bias.detach(),
    }
    wide.load_state_dict(
        state | own | {"visual.head.mlp.fc2.weight": weight, "text_projection": projection}
    )
    return wide
