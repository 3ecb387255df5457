"""Take out of an open_clip image tower what changes nothing in its embedding.

A ViT's last block runs for the class token alone; the batch norms of a ResNet or an EfficientNet go
into the convolutions before them.
"""

from __future__ import annotations

from itertools import pairwise

import timm.models.efficientnet
import timm.models.resnet
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.layers import BatchNormAct2d
from torch.nn.utils.fusion import fuse_conv_bn_eval

# Networks whose every batch norm runs just after the convolution that is defined before it.
_FUSED = (timm.models.resnet.ResNet, timm.models.efficientnet.EfficientNet, ModifiedResNet)


class ClassTokenBlock(torch.nn.Module):
    """Run a transformer block for the first token, which looks at all of them: (B, L, D) to (B, 1,
    D).

    The same vector as row 0 of the whole block, for the keys and values plus 1/L of the rest: 7 %
    of a ViT-B-32.
    """

    def __init__(self, block: ResidualAttentionBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, tokens: torch.Tensor, attn_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Give what the block makes of the first token."""
        block = self.block
        seen = block.ln_1(tokens)
        first = tokens[:, :1] + block.ls_1(
            block.attention(seen[:, :1], seen, seen, attn_mask=attn_mask)
        )
        return first + block.ls_2(block.mlp(block.ln_2(first)))


def streamline(tower: torch.nn.Module) -> None:
    """Make an image tower do less for the same embedding; one of another kind stays as it is."""
    if isinstance(tower, VisionTransformer):
        _trim(tower)
    network = tower.trunk if isinstance(tower, TimmModel) else tower
    if isinstance(network, _FUSED):
        _fuse(network)


def _trim(tower: VisionTransformer) -> None:
    """Leave out the other tokens of the last block where the class token is pooled."""
    if tower.pool_type != "tok" or tower.attn_pool is not None:
        return
    blocks = tower.transformer.resblocks
    if type(blocks[-1]) is ResidualAttentionBlock and tower.transformer.batch_first:
        blocks[-1] = ClassTokenBlock(blocks[-1])


def _fuse(module: torch.nn.Module) -> None:
    """Fold each batch norm into the convolution just before it; in these networks it also runs just
    before it.
    """
    children = list(module.named_children())
    for (name, child), (next_name, following) in pairwise(children):
        if type(following) in (torch.nn.BatchNorm2d, BatchNormAct2d):
            stem = isinstance(
                child, torch.nn.Sequential
            )  # its last convolution comes before the norm
            holder, place = (child, str(len(child) - 1)) if stem else (module, name)
            setattr(holder, place, fuse_conv_bn_eval(getattr(holder, place), following))
            setattr(
                module,
                next_name,
                following.act if type(following) is BatchNormAct2d else torch.nn.Identity(),
            )
    for _, child in children:
        _fuse(child)
