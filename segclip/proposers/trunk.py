"""The parts of a small SAM: a YOLO network's trunk as image encoder, drawn prompts, a decoder that
sees fine maps.

The published SAM keeps all detail in a map of stride 16, which takes a huge encoder. SAM 2 (Ravi et
al. 2024, https://arxiv.org/abs/2408.00714) hands its decoder finer maps too; so does this, inside
the one tensor that segment-anything's classes pass on: after the embedding's channels come those of
the fine map, folded to its stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from ..startup import without_compiler
from . import yolo
from .decoder import Look, Seen

with without_compiler():
    from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
    from segment_anything.modeling.common import LayerNorm2d
    from segment_anything.modeling.mask_decoder import MLP

_MARKS = 6  # drawn for a prompt
_FAR = 4.0  # cells
_FOLD = 4  # cells of the fine map along a cell of the embedding


@dataclass(frozen=True)
class Trunk:
    """Describe the encoder: a segmentation network of ultralytics, the layers whose maps are used,
    how many are fine.

    layers: of strides 2, 4, 8, 16 and 32. What the network's own head proposes is used as well.
    fine: channels of the map of stride patch / 4, as many as the head has prototypes.
    """

    description: str = "yolov8n-seg.yaml"
    layers: tuple[int, ...] = (0, 2, 15, 18, 21)
    fine: int = 32

    def build(self, image_size: int, patch: int, channels: int) -> TrunkEncoder:
        """Make the encoder, randomly initialised."""
        return TrunkEncoder(self, image_size, patch, channels)


class TrunkEncoder(torch.nn.Module):
    """Encode float32 (B, 3, S, S) in [0, 1] into one tensor (B, C, S / patch, S / patch).

    Its channels: the embedding; the fine map, 16 cells folded into one; what the network's own head
    proposes in each cell, the four of stride 8, the one of 16, the one of 32: a score, a box in
    cells of the fine map, coefficients.
    """

    def __init__(self, trunk: Trunk, image_size: int, patch: int, channels: int) -> None:
        super().__init__()
        with yolo.quiet():
            network = yolo.build(trunk.description, 1)
        self.img_size, self.patch, self.used = (
            image_size,
            patch,
            trunk.layers,
        )  # img_size: segment-anything's word
        self.trunk, self.head = network.model[:-1], network.model[-1]
        with torch.no_grad():
            maps, fine, _ = self._maps(torch.zeros(1, 3, 4 * patch, 4 * patch))
        self.neck = torch.nn.Sequential(
            torch.nn.Conv2d(maps.shape[1], channels, 1, bias=False),
            LayerNorm2d(channels),
            torch.nn.GELU(),
            torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            LayerNorm2d(channels),
        )
        self.fine = torch.nn.Conv2d(fine.shape[1], trunk.fine, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give the embedding, the fine map and the proposals of all cells."""
        maps, fine, proposed = self._maps(pixels)
        return torch.cat(
            [self.neck(maps), F.pixel_unshuffle(self.fine(fine), _FOLD), proposed], dim=1
        )

    def _maps(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the trunk: all maps on the grid of cells, the prototypes beside other fine ones, the
        proposals.
        """
        made: list[torch.Tensor] = []
        last = pixels
        for layer in self.trunk:
            sources = [layer.f] if isinstance(layer.f, int) else layer.f
            given = [last if source == -1 else made[source] for source in sources]
            last = layer(given[0] if isinstance(layer.f, int) else given)
            made.append(last)
        used = [made[layer] for layer in self.used]
        side = pixels.shape[-1] // self.patch
        prototypes = self.head.proto(used[2])
        proposed = [
            _on_grid(self._propose(level, taken, _FOLD * side), side)
            for level, taken in enumerate(used[2:])
        ]
        fine = torch.cat([prototypes, used[1], _on_grid(used[0], _FOLD * side)], dim=1)
        maps = [_on_grid(taken, side) for taken in (*used, prototypes)]
        return torch.cat([*maps, *proposed], dim=1), fine, torch.cat(proposed, dim=1)

    def _propose(self, level: int, taken: torch.Tensor, cells: int) -> torch.Tensor:
        """Run the head on a level's map: score, box (x1, y1, x2, y2) in cells of the fine map,
        coefficients.
        """
        height, width = taken.shape[2:]
        reach = self.head.dfl(self.head.cv2[level](taken).flatten(2)).view(-1, 4, height, width)
        ys, xs = (
            torch.arange(count, dtype=taken.dtype, device=taken.device) + 0.5
            for count in (height, width)
        )
        middle = torch.stack([xs.expand(height, width), ys[:, None].expand(height, width)])
        box = torch.cat([middle - reach[:, :2], middle + reach[:, 2:]], dim=1) * (cells / width)
        return torch.cat([self.head.cv3[level](taken), box, self.head.cv4[level](taken)], dim=1)


class DrawnPromptEncoder(PromptEncoder):
    """Encode prompts as SAM does and draw them on the grid of cells too, as RITM does (Sofiiuk et
    al. 2021, https://arxiv.org/abs/2102.06583): a small network need not first learn where a
    token's position lies.
    """

    def __init__(
        self,
        embed_dim: int,
        image_embedding_size: tuple[int, int],
        input_image_size: tuple[int, int],
        mask_in_chans: int,
    ) -> None:
        super().__init__(embed_dim, image_embedding_size, input_image_size, mask_in_chans)
        self.drawn = torch.nn.Conv2d(_MARKS, embed_dim, 1, bias=False)

    def forward(
        self,
        points: tuple[torch.Tensor, torch.Tensor] | None,
        boxes: torch.Tensor | None,
        masks: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the tokens (B, K, C) and (B, C + 6, h, w): the dense embedding, what is drawn behind
        it.
        """
        sparse, dense = super().forward(points, boxes, masks)
        return sparse, self.with_marks(dense, self.draw(points, boxes, len(dense)))

    def with_marks(self, dense: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
        """Add marks (B, 6, h, w) to a dense embedding (B, C, h, w) and put them behind it."""
        return torch.cat([dense + self.drawn(marks.clamp(-_FAR, _FAR)), marks], dim=1)

    def draw(
        self,
        points: tuple[torch.Tensor, torch.Tensor] | None,
        boxes: torch.Tensor | None,
        prompts: int,
    ) -> torch.Tensor:
        """Draw B prompts: clicks on and beside the object as bells; how far each side of the box
        is, in cells.

        Those sides, left, top, right and bottom, are counted from the middle of each cell to the
        right and down; where there is no box all are 0. Gives (B, 6, h, w).
        """
        height, width = self.image_embedding_size
        marks = self.no_mask_embed.weight.new_zeros(prompts, _MARKS, height, width)
        size = marks.new_tensor(
            [self.input_image_size[1] / width, self.input_image_size[0] / height]
        )
        xs, ys = (
            torch.arange(count, dtype=marks.dtype, device=marks.device) + 0.5
            for count in (width, height)
        )
        if points is not None:
            places, labels = (points[0] + 0.5) / size, points[1]  # (B, K, 2) in cells
            x, y = (places[..., axis, None] for axis in (0, 1))
            bells = (
                torch.exp(-((xs - x) ** 2) / 2)[:, :, None, :]
                * torch.exp(-((ys - y) ** 2) / 2)[..., None]
            )
            for channel, label in enumerate((1, 0)):
                marks[:, channel] = (bells * (labels == label)[..., None, None]).amax(dim=1)
        if boxes is not None:
            sides = (boxes.reshape(-1, 2, 2) / size).flatten(1)[
                ..., None, None
            ]  # (B, 4, 1, 1) in cells
            marks[:, 2::2] = sides[:, 0::2] - xs
            marks[:, 3::2] = sides[:, 1::2] - ys[:, None]
        return marks


class FineMaskDecoder(MaskDecoder):
    """Decode as SAM does, beginning with what the encoder's own head proposes where a prompt is
    drawn.

    Each mask is a product of its token with the upscaled embedding and with the fine map, as in
    YOLACT (Bolya et al. 2019, https://arxiv.org/abs/1904.02689), where the proposed coefficients
    and boxes come from: the single mask begins with the proposal that fits the prompt best, each of
    the other three with the best of one stride.
    """

    def __init__(
        self,
        *,
        transformer_dim: int,
        transformer: TwoWayTransformer,
        iou_head_hidden_dim: int,
        fine: int,
    ):
        super().__init__(
            transformer_dim=transformer_dim,
            transformer=transformer,
            iou_head_hidden_dim=iou_head_hidden_dim,
        )
        mixed = transformer_dim // 8 + fine
        heads = (
            MLP(transformer_dim, transformer_dim, mixed, 3) for _ in range(self.num_mask_tokens)
        )
        self.output_hypernetworks_mlps = torch.nn.ModuleList(heads)
        self.fine = fine
        # how much a proposal gains by a click at its cell, by one beside the object, by the IoU of
        # its box
        self.fits = torch.nn.Parameter(torch.tensor([17.0, -8.0, 34.0]))
        self.noticed = torch.nn.Linear(transformer_dim, transformer_dim)
        self.strictness = torch.nn.Parameter(
            torch.tensor([2.0, 1.0])
        )  # a cell's cost outside the box proposed, given
        self.trust = torch.nn.Parameter(torch.tensor(0.5))  # in the proposals' scores

    def forward(
        self,
        image_embeddings: torch.Tensor,
        image_pe: torch.Tensor,
        sparse_prompt_embeddings: torch.Tensor,
        dense_prompt_embeddings: torch.Tensor,
        multimask_output: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Give all four masks or, without ``multimask_output``, the single one; SAM leaves it out
        of the former.

        The single mask is the likeliest thing meant: on drawn scenes it is as often right as the
        best rated of three.
        """
        given = image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings
        return self.predict_masks(*given, count=self.count(multimask=multimask_output))

    def count(self, *, multimask: bool) -> int:
        """Give how many masks are answered."""
        return self.num_mask_tokens if multimask else 1

    def predict_masks(
        self,
        image_embeddings: torch.Tensor,
        image_pe: torch.Tensor,
        sparse_prompt_embeddings: torch.Tensor,
        dense_prompt_embeddings: torch.Tensor,
        count: int = 4,
        look: Look | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode B prompts on one image: logits (B, count, 4h, 4w) and predicted IoU (B, count),
        single mask first.

        look: what runs the transformer and the upscaling; None is segment-anything's own modules.
        """
        prompts = len(sparse_prompt_embeddings)
        ends = self.transformer_dim, self.transformer_dim + self.fine * _FOLD**2
        coarse, folded, proposed = image_embeddings.tensor_split(ends, dim=1)
        dense, marks = dense_prompt_embeddings.tensor_split([self.transformer_dim], dim=1)
        given = _FOLD * (marks[:, 2:, 0, 0] + 0.5)  # (B, 4) box in cells of the fine map
        score, box, coefficients, where = self._choose(proposed, marks[:, :2], given)
        noticed = self.noticed(where @ coarse.flatten(2).transpose(1, 2))  # (B, 4, C)
        output = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(prompts, -1, -1)
        output = output + torch.cat([noticed[:, :1], noticed], dim=1)
        tokens = torch.cat([output, sparse_prompt_embeddings], dim=1)  # (B, 5 + K, C)
        embedding = coarse + dense  # (B, C, h, w)
        tokens, seen = (look or partial(self._look, image_pe))(embedding, tokens)
        heads = self.output_hypernetworks_mlps[:count]
        factors = [head(tokens[:, 1 + row] + noticed[:, row]) for row, head in enumerate(heads)]
        wide, narrow = torch.stack(factors, dim=1).tensor_split([self.transformer_dim // 8], dim=2)
        fine = (narrow + coefficients[:, :count]) @ folded.view(
            self.fine, -1
        )  # (B, count, 16hw), 16 cells in one
        fine = F.pixel_shuffle(
            fine.view(prompts, -1, *folded.shape[2:]), _FOLD
        )  # (B, count, 4h, 4w)
        masks = seen(wide) + fine
        masks = masks - self.strictness[0] * _beyond(box[:, :count], fine.shape[2:])
        boxed = (given[:, 2] > given[:, 0])[:, None, None, None]
        masks = masks - self.strictness[1] * boxed * _beyond(given[:, None], fine.shape[2:])
        quality = self.iou_prediction_head(tokens[:, 0]) + self.trust * score[..., 0].sigmoid()
        return masks, quality[:, :count]

    def _look(
        self, positions: torch.Tensor, embedding: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, Seen]:
        tokens, seen = self.transformer(
            embedding, positions.expand(len(embedding), -1, -1, -1), tokens
        )
        seen = self.output_upscaling(
            seen.transpose(1, 2).reshape(embedding.shape)
        )  # (B, C / 8, 4h, 4w)
        return tokens, lambda factors: (factors @ seen.flatten(2)).unflatten(2, seen.shape[2:])

    def _choose(
        self, proposed: torch.Tensor, clicks: torch.Tensor, given: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Choose softly what fits a prompt, of all strides for the single mask, of each stride for
        the other three.

        proposed: (1, 6 x (5 + fine), h, w). clicks: (B, 2, h, w). given: (B, 4). Gives the score
        (B, 4, 1), box (B, 4, 4), coefficients (B, 4, fine) of what is chosen for each mask and its
        cells' weights (B, 4, hw).
        """
        cells, size = proposed.shape[2] * proposed.shape[3], 5 + self.fine
        rows = [
            part.reshape(size, -1) for part in proposed[0].tensor_split([4 * size, 5 * size])
        ]  # (size, k hw)
        near = self.fits[0] * clicks[:, 0] + self.fits[1] * clicks[:, 1]  # (B, h, w)
        fits = [
            part[0]
            + near.flatten(1).repeat(1, part.shape[1] // cells)
            + self.fits[2] * _box_iou(given, part[1:5])
            for part in rows
        ]  # (B, k hw)
        rows, fits = [torch.cat(rows, dim=1), *rows], [torch.cat(fits, dim=1), *fits]
        weights = [fit.softmax(dim=1) for fit in fits]
        chosen = torch.stack(
            [weight @ part.T for weight, part in zip(weights, rows, strict=True)], dim=1
        )
        where = torch.stack(
            [weight.view(len(weight), -1, cells).sum(dim=1) for weight in weights], dim=1
        )
        score, box, coefficients = chosen.tensor_split([1, 5], dim=2)
        return score, box, coefficients, where


def _box_iou(one: torch.Tensor, many: torch.Tensor) -> torch.Tensor:
    """Give the IoU of boxes (B, 4) with boxes (4, N): (B, N); 0 for boxes without an area."""
    x1, y1, x2, y2 = one[..., None].unbind(dim=1)
    width = (torch.minimum(x2, many[2]) - torch.maximum(x1, many[0])).clamp(min=0)
    height = (torch.minimum(y2, many[3]) - torch.maximum(y1, many[1])).clamp(min=0)
    both = (many[2] - many[0]) * (many[3] - many[1]) + (x2 - x1) * (y2 - y1)
    return width * height / (both - width * height).clamp(min=1e-3)


def _beyond(boxes: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Tell how far cells lie outside boxes (B, K, 4), but no farther than _FAR: (B, K, height,
    width).
    """
    ys, xs = (torch.arange(count, dtype=boxes.dtype, device=boxes.device) + 0.5 for count in size)
    x1, y1, x2, y2 = boxes[..., None].unbind(dim=2)  # (B, K, 1) each
    across = (x1 - xs).relu() + (xs - x2).relu()
    down = (y1 - ys).relu() + (ys - y2).relu()
    return (across[..., None, :] + down[..., None]).clamp(max=_FAR)


def _on_grid(taken: torch.Tensor, side: int) -> torch.Tensor:
    """Fold a finer map's cells into channels, repeat a coarser one's."""
    if taken.shape[-1] >= side:
        return F.pixel_unshuffle(taken, taken.shape[-1] // side)
    return F.interpolate(taken, scale_factor=side // taken.shape[-1], mode="nearest")
