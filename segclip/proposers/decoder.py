"""Run SAM's mask decoder for several prompts at once: what segment-anything's modules do, in fewer
passes over memory.

A prompt has some 7 tokens and the image thousands of cells, so all projections are moved to the
tokens' side: with q a token's query and W the keys' projection, q . (W k) = (W^T q) . k, and sum(p
W v) = W sum(p v). What a softmax cannot see, a key's bias, is left out. Transposed convolutions of
2 x 2 at stride 2 are products per cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ..startup import without_compiler

with without_compiler():
    from segment_anything.modeling import MaskDecoder, TwoWayTransformer
    from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock


Seen = Callable[
    [torch.Tensor], torch.Tensor
]  # factors of masks (B, M, C / 8) to their logits (B, M, 4h, 4w)
Look = Callable[
    [torch.Tensor, torch.Tensor], tuple[torch.Tensor, Seen]
]  # embedding (B, C, h, w), tokens (B, T, C)


def decode(
    decoder: MaskDecoder,
    look: Look,
    embedding: torch.Tensor,
    sparse: torch.Tensor,
    dense: torch.Tensor,
    *,
    multimask: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what ``MaskDecoder`` does: logits (B, M, 4h, 4w) and predicted IoU (B, M), M 3 with
    ``multimask``, else 1.
    """
    output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(
        len(sparse), -1, -1
    )
    tokens, seen = look(embedding + dense, torch.cat([output, sparse], dim=1))
    rows = range(1, decoder.num_mask_tokens) if multimask else range(1)
    factors = [decoder.output_hypernetworks_mlps[row](tokens[:, 1 + row]) for row in rows]
    return seen(torch.stack(factors, dim=1)), decoder.iou_prediction_head(tokens[:, 0])[:, rows]


class QuickLook:
    """Run a mask decoder's transformer and upscaling, with its weights as they are now.

    positions: of the image's cells, (1, C, h, w).
    """

    def __init__(self, decoder: MaskDecoder, positions: torch.Tensor) -> None:
        self.places = positions.flatten(2).transpose(1, 2).contiguous()  # (1, hw, C)
        self.transformer: TwoWayTransformer = decoder.transformer
        first, self.norm, _, second, _ = decoder.output_upscaling
        self.first, self.second = _per_cell(first), _per_cell(second)

    def __call__(self, embedding: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, Seen]:
        """Give B prompts' tokens (B, T, C) as ``TwoWayTransformer`` does, and masks by the upscaled
        embedding.

        embedding: (B, C, h, w).
        """
        keys = embedding.flatten(2).transpose(1, 2).contiguous()  # (B, hw, C)
        placed, queries = keys + self.places, tokens
        for layer in self.transformer.layers:
            queries = _among_tokens(layer, queries, tokens)
            seen = _tokens_to_cells(layer.cross_attn_token_to_image, queries + tokens, placed, keys)
            queries = layer.norm2(queries + seen)
            queries = layer.norm3(queries + layer.mlp(queries))
            keys = _cells_to_tokens(layer, placed, queries + tokens, queries, keys)
            placed = keys + self.places
        seen = _tokens_to_cells(
            self.transformer.final_attn_token_to_image, queries + tokens, placed, keys
        )
        return self.transformer.norm_final_attn(queries + seen), self._upscale(
            keys, embedding.shape[2:]
        )

    def _upscale(self, keys: torch.Tensor, size: Sequence[int]) -> Seen:
        weight, bias = self.first
        cells = torch.addmm(bias, keys.flatten(0, 1), weight).unflatten(
            1, (4, -1)
        )  # (B hw, 4, C / 4)
        cells = F.gelu(
            F.layer_norm(cells, cells.shape[2:], self.norm.weight, self.norm.bias, self.norm.eps)
        )
        weight, bias = self.second
        cells = F.gelu(torch.addmm(bias, cells.flatten(0, 1), weight))  # (B hw 4, 4 x C / 8)
        cells = cells.view(len(keys), size[0] * size[1] * 16, -1)

        def masks(factors: torch.Tensor) -> torch.Tensor:
            rows = (cells @ factors.transpose(1, 2)).view(-1, *size, 2, 2, 2, 2, factors.shape[1])
            return rows.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(
                *factors.shape[:2], 4 * size[0], 4 * size[1]
            )

        return masks


def _per_cell(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Give a transposed convolution of 2 x 2 at stride 2 as a matrix (in, 2 x 2 x out) and a bias
    (2 x 2 x out,).
    """
    return layer.weight.permute(0, 2, 3, 1).flatten(1).contiguous(), layer.bias.repeat(4)


def _among_tokens(
    layer: TwoWayAttentionBlock, queries: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    if layer.skip_first_layer_pe:
        return layer.norm1(layer.self_attn(q=queries, k=queries, v=queries))
    asked = queries + tokens
    return layer.norm1(queries + layer.self_attn(q=asked, k=asked, v=queries))


def _tokens_to_cells(
    attention: Attention, asked: torch.Tensor, placed: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """Let T tokens look at N cells: (B, T, C)."""
    heads = attention.num_heads
    asked = attention.q_proj(asked).unflatten(2, (heads, -1)).transpose(1, 2)  # (B, H, T, d)
    asked = (
        asked / asked.shape[3] ** 0.5 @ attention.k_proj.weight.unflatten(0, (heads, -1))
    )  # (B, H, T, C)
    weights = (asked.flatten(1, 2) @ placed.transpose(1, 2)).softmax(dim=2)  # (B, H T, N)
    seen = (weights @ keys).unflatten(1, (heads, -1))  # (B, H, T, C)
    seen = seen @ attention.v_proj.weight.unflatten(0, (heads, -1)).transpose(1, 2)  # (B, H, T, d)
    return attention.out_proj(seen.transpose(1, 2).flatten(2) + attention.v_proj.bias)


def _cells_to_tokens(
    layer: TwoWayAttentionBlock,
    placed: torch.Tensor,
    asked: torch.Tensor,
    values: torch.Tensor,
    keys: torch.Tensor,
) -> torch.Tensor:
    """Let N cells look at T tokens, and add what they see to the keys: (B, N, C)."""
    attention = layer.cross_attn_image_to_token
    heads = attention.num_heads
    tokens = attention.k_proj(asked).unflatten(2, (heads, -1))  # (B, T, H, d)
    tokens = tokens.transpose(1, 2) / tokens.shape[3] ** 0.5
    query = attention.q_proj
    reach = tokens @ query.weight.unflatten(0, (heads, -1))  # (B, H, T, C)
    lean = tokens @ query.bias.view(heads, -1, 1)  # (B, H, T, 1)
    reach, lean = (
        reach.transpose(1, 2).flatten(1, 2),
        lean.transpose(1, 2).flatten(1, 2),
    )  # (B, T H, C)
    weights = torch.baddbmm(lean, reach, placed.transpose(1, 2))  # (B, T H, N)
    weights = weights.unflatten(1, (-1, heads)).softmax(dim=1).flatten(1, 2)
    told = attention.v_proj(values).unflatten(2, (heads, -1)).transpose(1, 2)  # (B, H, T, d)
    told = (
        told @ attention.out_proj.weight.T.unflatten(0, (heads, -1))
        + attention.out_proj.bias / heads
    )
    told = told.transpose(1, 2).flatten(1, 2)  # (B, T H, C)
    return layer.norm4(torch.baddbmm(keys, weights.transpose(1, 2), told))
