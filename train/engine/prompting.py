"""Prompt a mini-sam on tiles: many objects of one tile at once, each with its own prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..scenes.tiles import PATCH
from .clicks import ClickPrompt


def decode(
    network: Any,
    maps: torch.Tensor,
    asks: Sequence[ClickPrompt],
    masks: torch.Tensor | None,
    corner: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode N prompts, those without a box first: logits (N, 4, h, w), quality (N, 4).

    Token 0 is the single mask. maps: the image encoder's features of the tile. masks: logits of the
    previous answers (N, 1, h, w). corner: x, y of the tile in the frame, in px.
    """
    prompts, decoder = network.prompt_encoder, network.mask_decoder
    cells = maps.shape[-1]
    left, top = (place // PATCH for place in corner)
    window = np.s_[:, :, top : top + cells, left : left + cells]
    plain, boxed = (
        [ask for ask in asks if ask.box is None],
        [ask for ask in asks if ask.box is not None],
    )
    encoded = [_encode(prompts, group, corner) for group in (plain, boxed) if group]
    sparse, drawn = (torch.cat(parts) for parts in zip(*encoded, strict=True))
    unknown = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
    dense = (
        unknown.expand(len(drawn), -1, cells, cells)
        if masks is None
        else prompts.mask_downscaling(masks)
    )
    positions = prompts.get_dense_pe()[window]
    dense = prompts.with_marks(dense, drawn[window])
    logits, quality = decoder.predict_masks(maps, positions, sparse, dense)
    return logits, quality


def _encode(
    prompts: Any, asks: Sequence[ClickPrompt], corner: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode prompts without their masks: tokens (N, K, C), drawn marks (N, C, h, w).

    Either all prompts have a box or none has.
    """
    points, boxes, parts = None, None, []
    if asks[0].clicks:
        clicks = torch.tensor([ask.clicks for ask in asks], dtype=torch.float32)  # (N, K, 3)
        points = clicks[..., :2] + torch.tensor(corner), clicks[..., 2]
        parts.append(prompts._embed_points(*points, pad=asks[0].box is None))
    if asks[0].box is not None:
        boxes = torch.tensor([ask.box for ask in asks], dtype=torch.float32) + torch.tensor(
            corner * 2
        )
        parts.append(prompts._embed_boxes(boxes))
    return torch.cat(parts, dim=1), prompts.draw(points, boxes, len(asks))
