"""FastSAM on ultralytics: a one-class YOLO segmentation network proposes every object, prompts choose among them.

Fast Segment Anything, Zhao et al. 2023, https://arxiv.org/abs/2306.12156.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from ..errors import BadPrompt
from ..types import Array, Boxes, Image, Masks, Points, Prompt, Proposals
from .assembly import assemble
from .yolo import letterbox, load, save

__all__ = ["FastSAM", "FastSAMOptions", "Features", "save"]

_PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class FastSAMOptions:
    """Say how FastSAM looks; None takes what the checkpoint's configuration says, else FastSAM's own 1024, 0.4, 0.9.

    image_size: longer side the network sees, rounded up to its stride. confidence: least quality of a proposal. iou: of
    two boxes overlapping more than this, the better is kept. max_det: most proposals. precision: of the network;
    "bfloat16" halves its time on CPUs with AVX512-BF16 and moves edges a little, "auto" is float32. trust: allow a
    pickled checkpoint that holds more than ultralytics' own types.
    """

    image_size: int | None = None
    confidence: float | None = None
    iou: float | None = None
    max_det: int = 300
    precision: str = "auto"
    trust: bool = False

    def __post_init__(self) -> None:
        if self.precision not in _PRECISIONS:
            raise BadPrompt(f"unknown precision {self.precision!r}; choose one of {', '.join(_PRECISIONS)}")
        for noun, value in (("confidence", self.confidence), ("iou", self.iou)):
            if value is not None and not 0 <= value <= 1:
                raise BadPrompt(f"{noun} must lie in [0, 1], got {value}")
        for noun, value in (("image_size", self.image_size), ("max_det", self.max_det)):
            if value is not None and value < 1:
                raise BadPrompt(f"{noun} must be at least 1, got {value}")


@dataclass(frozen=True, eq=False)
class Features:
    """Hold what the network found in one image of ``size`` (H, W): N candidates, best first, on the CPU.

    boxes: float32 (N, 4) xyxy pixels of the image. confidence: float32 (N,). coefficients: float32 (N, M).
    prototypes: float32 (M, h, w) over the letterboxed image.
    """

    boxes: torch.Tensor
    confidence: torch.Tensor
    coefficients: torch.Tensor
    prototypes: torch.Tensor
    size: tuple[int, int]

    @cached_property
    def proposals(self) -> Proposals:
        """Assemble the candidates' masks, once; those without a pixel inside their box are left out."""
        masks = assemble(self.prototypes, self.coefficients, self.boxes, self.size)
        return Proposals(masks, self.confidence.numpy())[masks.areas > 0]


class FastSAM:
    """Propose masks with a FastSAM checkpoint.

    path: ultralytics' ``.pt`` or a folder written by ``save``. device: as torch names it. Raises WeightsMissing,
    WeightsCorrupt, Unsupported.
    """

    def __init__(self, path: Path, *, device: str = "cpu", options: FastSAMOptions | None = None) -> None:
        self.options = options or FastSAMOptions()
        network, config = load(Path(path), trust=self.options.trust)
        self.device = torch.device(device)
        self.network: Any = network.to(self.device, memory_format=torch.channels_last)
        self.image_size = int(self._choose(self.options.image_size, config, "image_size", 1024))
        self.confidence = self._choose(self.options.confidence, config, "confidence", 0.4)
        self.iou = self._choose(self.options.iou, config, "iou", 0.9)
        self.letterbox = letterbox(self.image_size, max(int(self.network.stride.max()), 32))
        self._lock = Lock()  # the network keeps the anchors of the last shape it saw on itself

    @staticmethod
    def _choose(option: float | None, config: dict[str, Any], key: str, default: float) -> float:
        return float(config.get(key, default)) if option is None else option

    @torch.inference_mode()
    def encode(self, image: Image) -> Features:
        """Run the network on the letterboxed image and keep its best candidates."""
        from ultralytics.utils.ops import scale_boxes

        # rows of RGB pixels seen as (1, 3, h, w) are channels-last already
        pixels = torch.from_numpy(self.letterbox(image.pixels)).to(self.device).permute(2, 0, 1)[None].float() / 255
        low = self.options.precision == "bfloat16"
        with self._lock, torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            prediction, prototypes = self.network(pixels)[0]
        found = self._suppress(prediction[0].float().cpu())
        boxes = scale_boxes(pixels.shape[2:], found[:, :4], image.size)
        return Features(boxes, found[:, 4], found[:, 5:], prototypes[0].float().cpu(), image.size)

    def decode(self, features: Features, prompt: Prompt) -> Proposals:
        """Choose among the candidates of ``encode``.

        Everything: all, best first. Boxes: row i is the candidate of highest IoU with box i, or an empty mask of
        quality 0 when none touches it. Points: one object, as a ranking of whole candidates, best first, never a union:
        those that contain the most foreground points (all where any does) and no background point; maybe none.
        """
        proposals = features.proposals
        if isinstance(prompt, Boxes):
            return _choose_by_boxes(proposals, prompt.xyxy)
        if isinstance(prompt, Points):
            return _choose_by_points(proposals, prompt)
        return proposals

    def _suppress(self, prediction: torch.Tensor) -> torch.Tensor:
        """Keep confident candidates (5 + M, A) that overlap no better one: (N, 5 + M) xyxy, confidence, coefficients.

        The greedy suppression of torchvision, best first, stopped at ``max_det``; torchvision takes longer to import.
        """
        confident = prediction[:, prediction[4] > self.confidence].T
        confident = confident[confident[:, 4].argsort(descending=True, stable=True)]
        half = confident[:, 2:4] / 2
        confident[:, :4] = torch.cat([confident[:, :2] - half, confident[:, :2] + half], dim=1)
        boxes = confident[:, :4].numpy()
        left, kept = np.arange(len(boxes)), list[int]()
        while len(left) and len(kept) < self.options.max_det:
            kept.append(left[0])
            left = left[1:][_iou(boxes[left[0]], boxes[left[1:]]) <= self.iou]
        return confident[kept]


def _iou(box: Array, boxes: Array) -> Array:
    """Give intersection over union of one xyxy box with N: (N,)."""
    sides = (np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])).clip(0)
    shared = sides[:, 0] * sides[:, 1]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    union = (box[2] - box[0]) * (box[3] - box[1]) + areas - shared
    return shared / np.maximum(union, np.finfo(np.float32).tiny)


def _choose_by_boxes(proposals: Proposals, xyxy: Array) -> Proposals:
    height, width = proposals.masks.size
    outside = (xyxy < 0).any(axis=1) | (xyxy > (width, height, width, height)).any(axis=1)
    if outside.any():
        raise BadPrompt(
            f"box {xyxy[outside][0].tolist()} leaves the image; x must lie in [0, {width}] and y in [0, {height}]"
        )
    corners = np.hstack([np.floor(xyxy[:, :2]), np.ceil(xyxy[:, 2:])]).astype(np.int32)  # every pixel it touches
    solid = tuple(np.ones((y2 - y1, x2 - x1), bool) for x1, y1, x2, y2 in corners)
    overlap = Masks(corners, solid, proposals.masks.size).iou(proposals.masks)  # (B, N)
    rows = [int(row.argmax()) if row.any() else None for row in overlap]
    nothing = Proposals(Masks(np.zeros((1, 4)), (np.zeros((0, 0), bool),), proposals.masks.size), np.zeros(1))
    return _join([nothing if row is None else proposals[[row]] for row in rows])


def _join(parts: list[Proposals]) -> Proposals:
    boxes = np.concatenate([part.masks.boxes for part in parts])
    bitmaps = tuple(bitmap for part in parts for bitmap in part.masks.bitmaps)
    return Proposals(Masks(boxes, bitmaps, parts[0].masks.size), np.concatenate([part.quality for part in parts]))


def _choose_by_points(proposals: Proposals, points: Points) -> Proposals:
    height, width = proposals.masks.size
    outside = (points.xy < 0).any(axis=1) | (points.xy >= (width, height)).any(axis=1)
    if outside.any():
        x, y = points.xy[outside][0].tolist()
        raise BadPrompt(
            f"point ({x:g}, {y:g}) lies outside the image; x must lie in [0, {width}) and y in [0, {height})"
        )
    hits = _contains(proposals.masks, points.xy.astype(np.int64))  # (N, K)
    foreground = hits[:, points.labels == 1].sum(axis=1)
    allowed = ~hits[:, points.labels == 0].any(axis=1)
    most = foreground[allowed].max(initial=0)
    return proposals[allowed & (foreground == most) & ((most > 0) | ~points.labels.any())]


def _contains(masks: Masks, xy: Array) -> Array:
    """Tell which masks hold which pixels (x, y): bool (N, K)."""
    inside = (masks.boxes[:, None, :2] <= xy) & (xy < masks.boxes[:, None, 2:])  # (N, K, 2)
    hits = np.logical_and(inside[..., 0], inside[..., 1])
    for row, k in zip(*np.nonzero(hits), strict=True):
        x, y = xy[k] - masks.boxes[row, :2]
        hits[row, k] = masks.bitmaps[row][y, x]
    return hits
