"""Run SAM's mask decoder on a batch of prompts with fewer passes over memory.

The results equal those of segment-anything's modules. A prompt has some 7 tokens and the image
thousands of cells, so all projections are moved to the tokens' side: with q a token's query and W
the keys' projection, q . (W k) = (W^T q) . k, and sum(p W v) = W sum(p v). The bias of the keys
does not change a softmax and is left out. Transposed convolutions of 2 x 2 at stride 2 are one
matrix product per cell.
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


# mask factors (B, M, C / 8) to mask logits (B, M, 4h, 4w)
ToLogits = Callable[[torch.Tensor], torch.Tensor]
# embedding (B, C, h, w) and tokens (B, T, C) to updated tokens and ToLogits
Transformer = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, ToLogits]]


def decode(
    decoder: MaskDecoder,
    transformer: Transformer,
    embedding: torch.Tensor,
    sparse: torch.Tensor,
    dense: torch.Tensor,
    *,
    multimask: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode B prompts as ``MaskDecoder`` does: logits (B, M, 4h, 4w) and predicted IoU (B, M).

    M is 3 with ``multimask``, else 1.
    """
    output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(
        len(sparse), -1, -1
    )
    tokens, to_logits = transformer(embedding + dense, torch.cat([output, sparse], dim=1))
    rows = range(1, decoder.num_mask_tokens) if multimask else range(1)
    factors = [decoder.output_hypernetworks_mlps[row](tokens[:, 1 + row]) for row in rows]
    logits = to_logits(torch.stack(factors, dim=1))
    return logits, decoder.iou_prediction_head(tokens[:, 0])[:, rows]


class FastTransformer:
    """Run a mask decoder's transformer and upscaling with its current weights.

    positions: positional encoding of the image's cells, (1, C, h, w).
    """

    def __init__(self, decoder: MaskDecoder, positions: torch.Tensor) -> None:
        self.positions = positions.flatten(2).transpose(1, 2).contiguous()  # (1, hw, C)
        self.transformer: TwoWayTransformer = decoder.transformer
        first, self.norm, _, second, _ = decoder.output_upscaling
        self.first, self.second = _per_cell(first), _per_cell(second)

    def __call__(
        self, embedding: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, ToLogits]:
        """Return tokens (B, T, C) as ``TwoWayTransformer`` does, and its upscaled masks.

        embedding: (B, C, h, w). tokens: (B, T, C) of B prompts.
        """
        keys = embedding.flatten(2).transpose(1, 2).contiguous()  # (B, hw, C)
        positioned, queries = keys + self.positions, tokens
        for layer in self.transformer.layers:
            queries = _self_attention(layer, queries, tokens)
            attended = _tokens_to_cells(
                layer.cross_attn_token_to_image, queries + tokens, positioned, keys
            )
            queries = layer.norm2(queries + attended)
            queries = layer.norm3(queries + layer.mlp(queries))
            keys = _cells_to_tokens(layer, positioned, queries + tokens, queries, keys)
            positioned = keys + self.positions
        final = self.transformer.final_attn_token_to_image
        queries = queries + _tokens_to_cells(final, queries + tokens, positioned, keys)
        return self.transformer.norm_final_attn(queries), self._upscale(keys, embedding.shape[2:])

    def _upscale(self, keys: torch.Tensor, size: Sequence[int]) -> ToLogits:
        weight, bias = self.first
        cells = torch.addmm(bias, keys.flatten(0, 1), weight)
        cells = cells.unflatten(1, (4, -1))  # (B hw, 4, C / 4)
        cells = F.gelu(
            F.layer_norm(cells, cells.shape[2:], self.norm.weight, self.norm.bias, self.norm.eps)
        )
        weight, bias = self.second
        cells = F.gelu(torch.addmm(bias, cells.flatten(0, 1), weight))  # (B hw 4, 4 x C / 8)
        cells = cells.view(len(keys), size[0] * size[1] * 16, -1)

        def to_logits(factors: torch.Tensor) -> torch.Tensor:
            rows = (cells @ factors.transpose(1, 2)).view(-1, *size, 2, 2, 2, 2, factors.shape[1])
            return rows.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(
                *factors.shape[:2], 4 * size[0], 4 * size[1]
            )

        return to_logits


def _per_cell(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a 2 x 2, stride 2 transposed convolution as a matrix and a bias.

    Their shapes: (in, 2 x 2 x out) and (2 x 2 x out,).
    """
    return layer.weight.permute(0, 2, 3, 1).flatten(1).contiguous(), layer.bias.repeat(4)


def _self_attention(
    layer: TwoWayAttentionBlock, queries: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    if layer.skip_first_layer_pe:
        return layer.norm1(layer.self_attn(q=queries, k=queries, v=queries))
    positioned = queries + tokens
    return layer.norm1(queries + layer.self_attn(q=positioned, k=positioned, v=queries))


def _tokens_to_cells(
    attention: Attention, queries: torch.Tensor, positioned: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """Attend from T tokens to N cells: (B, T, C)."""
    heads = attention.num_heads
    q = attention.q_proj(queries).unflatten(2, (heads, -1)).transpose(1, 2)  # (B, H, T, d)
    q = q / q.shape[3] ** 0.5 @ attention.k_proj.weight.unflatten(0, (heads, -1))  # (B, H, T, C)
    weights = (q.flatten(1, 2) @ positioned.transpose(1, 2)).softmax(dim=2)  # (B, H T, N)
    out = (weights @ keys).unflatten(1, (heads, -1))  # (B, H, T, C)
    out = out @ attention.v_proj.weight.unflatten(0, (heads, -1)).transpose(1, 2)  # (B, H, T, d)
    return attention.out_proj(out.transpose(1, 2).flatten(2) + attention.v_proj.bias)


def _cells_to_tokens(
    layer: TwoWayAttentionBlock,
    positioned: torch.Tensor,
    queries: torch.Tensor,
    values: torch.Tensor,
    keys: torch.Tensor,
) -> torch.Tensor:
    """Attend from N cells to T tokens, and add the result to the keys: (B, N, C)."""
    attention = layer.cross_attn_image_to_token
    heads = attention.num_heads
    tokens = attention.k_proj(queries).unflatten(2, (heads, -1))  # (B, T, H, d)
    tokens = tokens.transpose(1, 2) / tokens.shape[3] ** 0.5
    query = attention.q_proj
    scores = tokens @ query.weight.unflatten(0, (heads, -1))  # (B, H, T, C)
    scores = scores.transpose(1, 2).flatten(1, 2)  # (B, T H, C)
    bias = tokens @ query.bias.view(heads, -1, 1)  # (B, H, T, 1)
    bias = bias.transpose(1, 2).flatten(1, 2)  # (B, T H, 1)
    weights = torch.baddbmm(bias, scores, positioned.transpose(1, 2))  # (B, T H, N)
    weights = weights.unflatten(1, (-1, heads)).softmax(dim=1).flatten(1, 2)
    out = attention.v_proj(values).unflatten(2, (heads, -1)).transpose(1, 2)  # (B, H, T, d)
    out = out @ attention.out_proj.weight.T.unflatten(0, (heads, -1))
    out = out + attention.out_proj.bias / heads
    out = out.transpose(1, 2).flatten(1, 2)  # (B, T H, C)
    return layer.norm4(torch.baddbmm(keys, weights.transpose(1, 2), out))
