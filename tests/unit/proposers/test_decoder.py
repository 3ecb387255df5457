"""The fast decoder equals segment-anything's modules up to rounding."""

from __future__ import annotations

import pytest
import torch

from segclip.proposers.decoder import FastTransformer, decode
from segclip.startup import without_compiler

with without_compiler():
    from segment_anything.modeling import MaskDecoder, TwoWayTransformer

CHANNELS, SIDES = 32, (6, 5)


@pytest.fixture(scope="module")
def decoder() -> MaskDecoder:
    """Build a decoder with nonzero biases."""
    torch.manual_seed(0)
    transformer = TwoWayTransformer(depth=2, embedding_dim=CHANNELS, num_heads=4, mlp_dim=48)
    network = MaskDecoder(
        transformer=transformer, transformer_dim=CHANNELS, iou_head_hidden_dim=24
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return network


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize(("prompts", "tokens"), [(1, 0), (1, 2), (3, 2), (2, 9)])
def test_decoding_equals_the_original(
    decoder: MaskDecoder, prompts: int, tokens: int, multimask: bool
) -> None:
    torch.manual_seed(prompts)
    embedding, positions = torch.randn(1, CHANNELS, *SIDES), torch.randn(1, CHANNELS, *SIDES)
    sparse, dense = torch.randn(prompts, tokens, CHANNELS), torch.randn(prompts, CHANNELS, *SIDES)
    with torch.inference_mode():
        masks, quality = decoder(embedding, positions, sparse, dense, multimask)
        found = decode(
            decoder,
            FastTransformer(decoder, positions),
            embedding,
            sparse,
            dense,
            multimask=multimask,
        )
    assert found[0].shape == masks.shape == (prompts, 3 if multimask else 1, 24, 20)
    assert masks.std() > 0.1, "or nothing is compared"
    torch.testing.assert_close(found[0], masks, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], quality, rtol=1e-4, atol=1e-4)
