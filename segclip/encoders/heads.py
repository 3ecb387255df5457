"""Make an image tower's patches speak the text's language: PACL's residual embedder (Mukhoti et al. 2023, section 3.2).

A patch p becomes W1 p + W3 act(W2 p); tower and text stay as they are. Stored beside the model's weights.
"""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from ..errors import Unsupported, WeightsCorrupt

FILE = "patch_head.safetensors"


class PatchHead(nn.Module):
    """Embed patches. width: of the tower's patches. embed_dim: of the joint space."""

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.straight = nn.Linear(width, embed_dim, bias=False)
        self.bent = nn.Sequential(nn.Linear(width, embed_dim), nn.GELU(), nn.Linear(embed_dim, embed_dim))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Embed (B, h, w, C): unit (B, h, w, D)."""
        seen = self.norm(patches)
        return F.normalize(self.straight(seen) + self.bent(seen), dim=-1)


def patches(tower: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Give an open_clip image tower's last patches, after its own norm: (B, h, w, C)."""
    if not hasattr(tower, "forward_intermediates"):
        raise Unsupported(f"{type(tower).__name__} does not give its patches; use one of open_clip's image towers")
    seen = tower.forward_intermediates(pixels, indices=1, normalize_intermediates=True, intermediates_only=True)
    last: torch.Tensor = seen["image_intermediates"][-1]  # (B, C, h, w)
    return last.permute(0, 2, 3, 1)


def save(head: PatchHead, folder: Path) -> None:
    """Write the head into a checkpoint's folder, whole or not at all."""
    partial = folder / f"{FILE}.part"
    partial.write_bytes(safetensors.torch.save({name: value.cpu() for name, value in head.state_dict().items()}))
    partial.replace(folder / FILE)


def load(folder: Path | None) -> PatchHead | None:
    """Load the head that lies in a checkpoint's folder, if one does; raise WeightsCorrupt for what is none."""
    if folder is None or not (folder / FILE).is_file():
        return None
    try:
        state = safetensors.torch.load_file(folder / FILE)
        embed_dim, width = state["straight.weight"].shape
        head = PatchHead(width, embed_dim)
        head.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise WeightsCorrupt(f"{folder / FILE} is no patch head: {error}") from error
    return head.eval()
