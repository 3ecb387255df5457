"""Parts of a small SAM: a YOLO trunk as encoder, prompts drawn as maps, a decoder with fine maps.

The published SAM keeps all detail in a map of stride 16, which takes a huge encoder. SAM 2 (Ravi et
al. 2024, https://arxiv.org/abs/2408.00714) also passes finer maps to its decoder; so does this,
inside the one tensor that segment-anything's classes pass on: the channels of the embedding are
followed by those of the fine map, folded to its stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from ..startup import without_compiler
from . import yolo
from .decoder import ToLogits, Transformer

with without_compiler():
    from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
    from segment_anything.modeling.common import LayerNorm2d
    from segment_anything.modeling.mask_decoder import MLP

_MARKS = 6  # planes drawn for a prompt
_FAR = 4.0  # cells, at which distances are clipped
_FOLD = 4  # cells of the fine map along a cell of the embedding


@dataclass(frozen=True)
class Trunk:
    """Options of the encoder, the trunk of an ultralytics segmentation network.

    description: of that network. layers: those whose maps are used, of strides 2, 4, 8, 16 and 32.
    The proposals of the network's own head are used as well. fine: channels of the map of stride
    patch / 4, as many as the head has prototypes.
    """

    description: str = "yolov8n-seg.yaml"
    layers: tuple[int, ...] = (0, 2, 15, 18, 21)
    fine: int = 32

    def build(self, image_size: int, patch: int, channels: int) -> TrunkEncoder:
        """Build the encoder, randomly initialised."""
        return TrunkEncoder(self, image_size, patch, channels)


class TrunkEncoder(torch.nn.Module):
    """Encode float32 (B, 3, S, S) in [0, 1] into one tensor (B, C, S / patch, S / patch).

    Its channels: the embedding; the fine map, 16 cells folded into one; the proposals of the
    network's own head for each cell, four of stride 8, one of 16, one of 32: a score, a box in
    cells of the fine map, coefficients.
    """

    def __init__(self, trunk: Trunk, image_size: int, patch: int, channels: int) -> None:
        super().__init__()
        with yolo.quiet():
            network = yolo.build(trunk.description, 1)
        # segment-anything reads the attribute img_size
        self.img_size, self.patch, self.used = image_size, patch, trunk.layers
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
        """Return the embedding, the fine map and the proposals of all cells."""
        maps, fine, proposed = self._maps(pixels)
        return torch.cat(
            [self.neck(maps), F.pixel_unshuffle(self.fine(fine), _FOLD), proposed], dim=1
        )

    def _maps(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the trunk.

        Returns all maps on the grid of cells, the prototypes and other fine maps, the proposals.
        """
        outputs: list[torch.Tensor] = []
        last = pixels
        for layer in self.trunk:
            sources = [layer.f] if isinstance(layer.f, int) else layer.f
            inputs = [last if source == -1 else outputs[source] for source in sources]
            last = layer(inputs[0] if isinstance(layer.f, int) else inputs)
            outputs.append(last)
        used = [outputs[layer] for layer in self.used]
        side = pixels.shape[-1] // self.patch
        prototypes = self.head.proto(used[2])
        proposed = [
            _on_grid(self._propose(level, features, _FOLD * side), side)
            for level, features in enumerate(used[2:])
        ]
        fine = torch.cat([prototypes, used[1], _on_grid(used[0], _FOLD * side)], dim=1)
        maps = [_on_grid(features, side) for features in (*used, prototypes)]
        return torch.cat([*maps, *proposed], dim=1), fine, torch.cat(proposed, dim=1)

    def _propose(self, level: int, features: torch.Tensor, cells: int) -> torch.Tensor:
        """Run the head on a level's map: score, box, coefficients.

        The box is (x1, y1, x2, y2) in cells of the fine map.
        """
        height, width = features.shape[2:]
        sides = self.head.dfl(self.head.cv2[level](features).flatten(2)).view(-1, 4, height, width)
        ys, xs = (
            torch.arange(count, dtype=features.dtype, device=features.device) + 0.5
            for count in (height, width)
        )
        centre = torch.stack([xs.expand(height, width), ys[:, None].expand(height, width)])
        box = torch.cat([centre - sides[:, :2], centre + sides[:, 2:]], dim=1) * (cells / width)
        score, coefficients = self.head.cv3[level](features), self.head.cv4[level](features)
        return torch.cat([score, box, coefficients], dim=1)


class DrawnPromptEncoder(PromptEncoder):
    """Encode prompts as SAM does, and also draw them on the grid of cells.

    The drawing follows RITM (Sofiiuk et al. 2021, https://arxiv.org/abs/2102.06583): it saves a
    small network from learning where a token's positional encoding lies.
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
        """Return the tokens (B, K, C), and the dense embedding followed by the marks.

        The latter is (B, C + 6, h, w).
        """
        sparse, dense = super().forward(points, boxes, masks)
        return sparse, self.with_marks(dense, self.draw(points, boxes, len(dense)))

    def with_marks(self, dense: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
        """Add marks (B, 6, h, w) to a dense embedding (B, C, h, w) and append them to it."""
        return torch.cat([dense + self.drawn(marks.clamp(-_FAR, _FAR)), marks], dim=1)

    def draw(
        self,
        points: tuple[torch.Tensor, torch.Tensor] | None,
        boxes: torch.Tensor | None,
        prompts: int,
    ) -> torch.Tensor:
        """Draw B prompts as marks (B, 6, h, w).

        Two planes have Gaussians at foreground and at background clicks, four the offset of the
        box's left, top, right and bottom side from the centre of each cell, in cells, positive to
        the right and down; without a box all are 0.
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
            positions, labels = (points[0] + 0.5) / size, points[1]  # (B, K, 2) in cells
            x, y = (positions[..., axis, None] for axis in (0, 1))
            gaussians = (
                torch.exp(-((xs - x) ** 2) / 2)[:, :, None, :]
                * torch.exp(-((ys - y) ** 2) / 2)[..., None]
            )
            for channel, label in enumerate((1, 0)):
                marks[:, channel] = (gaussians * (labels == label)[..., None, None]).amax(dim=1)
        if boxes is not None:
            sides = (boxes.reshape(-1, 2, 2) / size).flatten(1)  # (B, 4) in cells
            sides = sides[..., None, None]
            marks[:, 2::2] = sides[:, 0::2] - xs
            marks[:, 3::2] = sides[:, 1::2] - ys[:, None]
        return marks


class FineMaskDecoder(MaskDecoder):
    """Decode as SAM does, starting from the proposals of the encoder's own head at the prompt.

    Each mask is a product of its token with the upscaled embedding and with the fine map. The
    proposed coefficients and boxes are those of YOLACT (Bolya et al. 2019,
    https://arxiv.org/abs/1904.02689): the single mask starts from the proposal that fits the prompt
    best, each of the other three from the best one of one stride.
    """

    def __init__(
        self,
        *,
        transformer_dim: int,
        transformer: TwoWayTransformer,
        iou_head_hidden_dim: int,
        fine: int,
    ) -> None:
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
        # parameter names are those of stored checkpoints
        # weights of a foreground click at a proposal's cell, a background click there, its box IoU
        self.fits = torch.nn.Parameter(torch.tensor([17.0, -8.0, 34.0]))
        self.noticed = torch.nn.Linear(transformer_dim, transformer_dim)
        # cost of a cell outside the proposed box, outside the given box
        self.strictness = torch.nn.Parameter(torch.tensor([2.0, 1.0]))
        self.trust = torch.nn.Parameter(torch.tensor(0.5))  # weight of the proposals' scores

    def forward(
        self,
        image_embeddings: torch.Tensor,
        image_pe: torch.Tensor,
        sparse_prompt_embeddings: torch.Tensor,
        dense_prompt_embeddings: torch.Tensor,
        multimask_output: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return all four masks or, without ``multimask_output``, the single mask.

        SAM omits the single mask from the multimask output; here it is the most likely one: on
        synthetic scenes it is right as often as the best rated of the other three.
        """
        given = image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings
        return self.predict_masks(*given, count=self.count(multimask=multimask_output))

    def count(self, *, multimask: bool) -> int:
        """Return how many masks are predicted."""
        return self.num_mask_tokens if multimask else 1

    def predict_masks(
        self,
        image_embeddings: torch.Tensor,
        image_pe: torch.Tensor,
        sparse_prompt_embeddings: torch.Tensor,
        dense_prompt_embeddings: torch.Tensor,
        count: int = 4,
        transformer: Transformer | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode B prompts: logits (B, count, 4h, 4w) and predicted IoU (B, count).

        All are of one image, and the single mask is first. transformer: runs the transformer and
        the upscaling; None uses segment-anything's own modules.
        """
        prompts = len(sparse_prompt_embeddings)
        ends = self.transformer_dim, self.transformer_dim + self.fine * _FOLD**2
        coarse, folded, proposed = image_embeddings.tensor_split(ends, dim=1)
        dense, marks = dense_prompt_embeddings.tensor_split([self.transformer_dim], dim=1)
        given = _FOLD * (marks[:, 2:, 0, 0] + 0.5)  # (B, 4) box in cells of the fine map
        score, box, coefficients, where = self.choose(proposed, marks[:, :2], given)
        noticed = self.noticed(where @ coarse.flatten(2).transpose(1, 2))  # (B, 4, C)
        output = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(prompts, -1, -1)
        output = output + torch.cat([noticed[:, :1], noticed], dim=1)
        tokens = torch.cat([output, sparse_prompt_embeddings], dim=1)  # (B, 5 + K, C)
        embedding = coarse + dense  # (B, C, h, w)
        transformer = transformer or partial(self._transform, image_pe)
        tokens, to_logits = transformer(embedding, tokens)
        heads = self.output_hypernetworks_mlps[:count]
        factors = [head(tokens[:, 1 + row] + noticed[:, row]) for row, head in enumerate(heads)]
        wide, narrow = torch.stack(factors, dim=1).tensor_split([self.transformer_dim // 8], dim=2)
        fine = (narrow + coefficients[:, :count]) @ folded.view(self.fine, -1)  # (B, count, 16hw)
        fine = fine.view(prompts, -1, *folded.shape[2:])
        fine = F.pixel_shuffle(fine, _FOLD)  # (B, count, 4h, 4w)
        masks = to_logits(wide) + fine
        masks = masks - self.strictness[0] * beyond(box[:, :count], fine.shape[2:])
        boxed = (given[:, 2] > given[:, 0])[:, None, None, None]
        masks = masks - self.strictness[1] * boxed * beyond(given[:, None], fine.shape[2:])
        quality = self.iou_prediction_head(tokens[:, 0]) + self.trust * score[..., 0].sigmoid()
        return masks, quality[:, :count]

    def _transform(
        self, positions: torch.Tensor, embedding: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, ToLogits]:
        tokens, cells = self.transformer(
            embedding, positions.expand(len(embedding), -1, -1, -1), tokens
        )
        fine = self.output_upscaling(cells.transpose(1, 2).reshape(embedding.shape))
        # fine is (B, C / 8, 4h, 4w)
        return tokens, lambda factors: (factors @ fine.flatten(2)).unflatten(2, fine.shape[2:])

    def choose(
        self, proposed: torch.Tensor, clicks: torch.Tensor, given: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Average the proposals by a softmax over how well they fit a prompt.

        The single mask takes proposals of all strides, each of the other three those of one.
        proposed: (1, 6 x (5 + fine), h, w). clicks: (B, 2, h, w). given: boxes (B, 4). Returns for
        each mask the score (B, 4, 1), box (B, 4, 4), coefficients (B, 4, fine) and weights of the
        cells (B, 4, hw).
        """
        cells, size = proposed.shape[2] * proposed.shape[3], 5 + self.fine
        # rows: (size, k hw) of each stride, fits: (B, k hw)
        rows = [part.reshape(size, -1) for part in proposed[0].tensor_split([4 * size, 5 * size])]
        near = self.fits[0] * clicks[:, 0] + self.fits[1] * clicks[:, 1]  # (B, h, w)
        fits = [
            part[0]
            + near.flatten(1).repeat(1, part.shape[1] // cells)
            + self.fits[2] * box_iou(given, part[1:5])
            for part in rows
        ]
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


def box_iou(one: torch.Tensor, many: torch.Tensor) -> torch.Tensor:
    """Return the IoU of boxes (B, 4) with boxes (4, N): (B, N); 0 for boxes without an area."""
    x1, y1, x2, y2 = one[..., None].unbind(dim=1)
    width = (torch.minimum(x2, many[2]) - torch.maximum(x1, many[0])).clamp(min=0)
    height = (torch.minimum(y2, many[3]) - torch.maximum(y1, many[1])).clamp(min=0)
    both = (many[2] - many[0]) * (many[3] - many[1]) + (x2 - x1) * (y2 - y1)
    return width * height / (both - width * height).clamp(min=1e-3)


def beyond(boxes: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return the distance of cells from boxes (B, K, 4), at most _FAR: (B, K, height, width)."""
    ys, xs = (torch.arange(count, dtype=boxes.dtype, device=boxes.device) + 0.5 for count in size)
    x1, y1, x2, y2 = boxes[..., None].unbind(dim=2)  # (B, K, 1) each
    across = (x1 - xs).relu() + (xs - x2).relu()
    down = (y1 - ys).relu() + (ys - y2).relu()
    return (across[..., None, :] + down[..., None]).clamp(max=_FAR)


def _on_grid(features: torch.Tensor, side: int) -> torch.Tensor:
    """Fold the cells of a finer map into channels, repeat those of a coarser one."""
    if features.shape[-1] >= side:
        return F.pixel_unshuffle(features, features.shape[-1] // side)
    return F.interpolate(features, scale_factor=side // features.shape[-1], mode="nearest")
