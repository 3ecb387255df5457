"""The parts of a small SAM: a YOLO network's trunk as image encoder, drawn prompts, a decoder that sees fine maps.

The published SAM keeps all detail in a map of stride 16, which takes a huge encoder. SAM 2 (Ravi et al. 2024,
https://arxiv.org/abs/2408.00714) hands its decoder finer maps too; so does this, inside the one tensor that
segment-anything's classes pass on: after the embedding's channels come those of the fine map, folded to its stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ..imports import without_compiler
from . import yolo

with without_compiler():
    from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
    from segment_anything.modeling.common import LayerNorm2d
    from segment_anything.modeling.mask_decoder import MLP

_MARKS = ("a click on it", "a click beside it", "inside its box")
_FOLD = 4  # cells of the fine map along a cell of the embedding


@dataclass(frozen=True)
class Trunk:
    """Describe the encoder: a segmentation network of ultralytics, the layers whose maps are used, how many are fine.

    layers: of strides 2, 4, 8 and 16. The prototypes and mask coefficients of the network's own head are used as well:
    they already tell objects apart. fine: channels of the map of stride patch / 4.
    """

    description: str = "yolov8n-seg.yaml"
    layers: tuple[int, ...] = (0, 2, 15, 18)
    fine: int = 32

    def build(self, image_size: int, patch: int, channels: int) -> TrunkEncoder:
        """Make the encoder, randomly initialised."""
        return TrunkEncoder(self, image_size, patch, channels)


class TrunkEncoder(torch.nn.Module):
    """Encode float32 (B, 3, S, S) in [0, 1] into (B, channels + 16 x fine, S / patch, S / patch)."""

    def __init__(self, trunk: Trunk, image_size: int, patch: int, channels: int) -> None:
        super().__init__()
        with yolo.quiet():
            from ultralytics.nn.tasks import SegmentationModel

            network: Any = SegmentationModel(trunk.description, nc=1, verbose=False)
        self.img_size, self.patch, self.used = image_size, patch, trunk.layers  # img_size: segment-anything's word
        self.trunk = network.model[: max(trunk.layers) + 1]
        self.prototypes, self.coefficients = network.model[-1].proto, network.model[-1].cv4[:2]
        with torch.no_grad():
            maps, fine = self._maps(torch.zeros(1, 3, 4 * patch, 4 * patch))
        self.neck = torch.nn.Sequential(
            torch.nn.Conv2d(maps.shape[1], channels, 1, bias=False),
            LayerNorm2d(channels),
            torch.nn.GELU(),
            torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            LayerNorm2d(channels),
        )
        self.fine = torch.nn.Conv2d(fine.shape[1], trunk.fine, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give the embedding and, folded behind it, the fine map."""
        maps, fine = self._maps(pixels)
        return torch.cat([self.neck(maps), F.pixel_unshuffle(self.fine(fine), _FOLD)], dim=1)

    def _maps(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the trunk: all maps on the grid of cells, and the prototypes beside other fine ones."""
        made: list[torch.Tensor] = []
        last = pixels
        for layer in self.trunk:
            sources = [layer.f] if isinstance(layer.f, int) else layer.f
            given = [last if source == -1 else made[source] for source in sources]
            last = layer(given[0] if isinstance(layer.f, int) else given)
            made.append(last)
        used = [made[layer] for layer in self.used]
        prototypes = self.prototypes(used[2])
        coefficients = [head(taken) for head, taken in zip(self.coefficients, used[2:], strict=True)]
        side = pixels.shape[-1] // self.patch
        maps = [_on_grid(taken, side) for taken in (*used, prototypes, *coefficients)]
        return torch.cat(maps, dim=1), torch.cat([prototypes, used[1], _on_grid(used[0], _FOLD * side)], dim=1)


class DrawnPromptEncoder(PromptEncoder):
    """Encode prompts as SAM does and draw them on the grid of cells too, as RITM does (Sofiiuk et al. 2021,
    https://arxiv.org/abs/2102.06583): a small network need not first learn where a token's position lies.
    """

    def __init__(
        self,
        embed_dim: int,
        image_embedding_size: tuple[int, int],
        input_image_size: tuple[int, int],
        mask_in_chans: int,
    ) -> None:
        super().__init__(embed_dim, image_embedding_size, input_image_size, mask_in_chans)
        self.drawn = torch.nn.Conv2d(len(_MARKS), embed_dim, 1, bias=False)

    def forward(
        self,
        points: tuple[torch.Tensor, torch.Tensor] | None,
        boxes: torch.Tensor | None,
        masks: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the tokens (B, K, C) and the dense embedding (B, C, h, w)."""
        sparse, dense = super().forward(points, boxes, masks)
        return sparse, dense + self.draw(points, boxes, len(dense))

    def draw(
        self, points: tuple[torch.Tensor, torch.Tensor] | None, boxes: torch.Tensor | None, prompts: int
    ) -> torch.Tensor:
        """Embed B prompts drawn on the grid: clicks on and beside the object as bells, the inside of the box."""
        height, width = self.image_embedding_size
        marks = self.no_mask_embed.weight.new_zeros(prompts, len(_MARKS), height, width)
        size = marks.new_tensor([self.input_image_size[1] / width, self.input_image_size[0] / height])
        xs, ys = (torch.arange(count, dtype=marks.dtype, device=marks.device) for count in (width, height))
        if points is not None:
            places, labels = (points[0] + 0.5) / size, points[1]  # (B, K, 2) in cells
            x, y = (places[..., axis, None] - 0.5 for axis in (0, 1))
            bells = torch.exp(-((xs - x) ** 2) / 2)[:, :, None, :] * torch.exp(-((ys - y) ** 2) / 2)[..., None]
            for channel, label in enumerate((1, 0)):
                chosen = (labels == label)[..., None, None]
                marks[:, channel] = (bells * chosen).amax(dim=1)
        if boxes is not None:
            corners = boxes.reshape(-1, 2, 2) / size  # (B, 2, 2) in cells
            across, down = (
                (torch.minimum(corners[:, 1, axis, None], line + 1) - torch.maximum(corners[:, 0, axis, None], line))
                for axis, line in ((0, xs), (1, ys))
            )
            marks[:, 2] = across.clamp(0, 1)[:, None, :] * down.clamp(0, 1)[:, :, None]
        return self.drawn(marks)


class FineMaskDecoder(MaskDecoder):
    """Decode as SAM does, each mask a product of its token with the upscaled embedding and with the fine map."""

    def __init__(self, *, transformer_dim: int, transformer: TwoWayTransformer, iou_head_hidden_dim: int, fine: int):
        super().__init__(
            transformer_dim=transformer_dim, transformer=transformer, iou_head_hidden_dim=iou_head_hidden_dim
        )
        mixed = transformer_dim // 8 + fine
        heads = (MLP(transformer_dim, transformer_dim, mixed, 3) for _ in range(self.num_mask_tokens))
        self.output_hypernetworks_mlps = torch.nn.ModuleList(heads)

    def predict_masks(
        self,
        image_embeddings: torch.Tensor,
        image_pe: torch.Tensor,
        sparse_prompt_embeddings: torch.Tensor,
        dense_prompt_embeddings: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode B prompts on one image: logits (B, 4, 4h, 4w) and predicted IoU (B, 4); all four masks of SAM."""
        prompts = len(sparse_prompt_embeddings)
        coarse, folded = image_embeddings.tensor_split([self.transformer_dim], dim=1)
        output = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([output.expand(prompts, -1, -1), sparse_prompt_embeddings], dim=1)  # (B, 5 + K, C)
        embedding = coarse + dense_prompt_embeddings  # (B, C, h, w)
        tokens, seen = self.transformer(embedding, image_pe.expand(prompts, -1, -1, -1), tokens)
        seen = self.output_upscaling(seen.transpose(1, 2).reshape(embedding.shape))  # (B, C / 8, 4h, 4w)
        factors = [head(tokens[:, 1 + row]) for row, head in enumerate(self.output_hypernetworks_mlps)]
        wide, narrow = torch.stack(factors, dim=1).tensor_split([seen.shape[1]], dim=2)
        fine = F.pixel_shuffle(folded, _FOLD)  # (1, fine, 4h, 4w)
        masks = wide @ seen.flatten(2) + narrow @ fine.flatten(2)  # (B, 4, 16hw)
        return masks.view(prompts, -1, *seen.shape[2:]), self.iou_prediction_head(tokens[:, 0])


def _on_grid(taken: torch.Tensor, side: int) -> torch.Tensor:
    """Fold a finer map's cells into channels, repeat a coarser one's."""
    if taken.shape[-1] >= side:
        return F.pixel_unshuffle(taken, taken.shape[-1] // side)
    return F.interpolate(taken, scale_factor=side // taken.shape[-1], mode="nearest")
