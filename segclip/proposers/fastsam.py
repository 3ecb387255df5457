"""FastSAM on ultralytics: a one-class YOLO network proposes all objects, prompts select some.

Fast Segment Anything, Zhao et al. 2023, https://arxiv.org/abs/2306.12156.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import BadPrompt, Unsupported, WeightsCorrupt
from ..types import Array, Boxes, Everything, Image, Prompt, Proposals
from ..weights.reading import described, reading
from . import space
from .edges import EdgeOptions, Frame, patches, refine
from .logits import assemble, prototype_gain, prototype_sampler
from .suppress import suppress
from .yolo import letterbox, load, save

__all__ = ["FastSAM", "FastSAMFeatures", "FastSAMOptions", "save"]

# options that a checkpoint's config.json may set
_STORED = ("image_size", "again", "confidence", "iou", "max_det")
_LARGEST = 4096  # px, upper limit of a checkpoint's longer side
_PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class FastSAMOptions:
    """Options of FastSAM; None takes the checkpoint's setting, else the default.

    image_size: longer side of the network's input, rounded up to its stride; 1024 by default.
    again: a second, smaller size, for objects that fill the image; 0, the default, for none.
    confidence: minimum quality of a proposal, 0.4 by default. iou: of two boxes with a higher IoU
    only the better is kept, 0.9 by default. max_det: maximum number of proposals, 300 by default.
    precision: of the network; "bfloat16" halves its time on CPUs with AVX512-BF16 and moves edges a
    little, "auto" is float32. edges: fit masks to the image's edges, which FastSAM does not.
    """

    image_size: int | None = None
    again: int | None = None
    confidence: float | None = None
    iou: float | None = None
    max_det: int | None = None
    precision: str = "auto"
    edges: EdgeOptions | None = None

    def __post_init__(self) -> None:
        if self.precision not in _PRECISIONS:
            raise BadPrompt(
                f"unknown precision {self.precision!r}; choose one of {', '.join(_PRECISIONS)}"
            )
        for noun, value in (("confidence", self.confidence), ("iou", self.iou)):
            if value is not None and not 0 <= value <= 1:
                raise BadPrompt(f"{noun} must lie in [0, 1], got {value}")
        for noun, value in (("image_size", self.image_size), ("max_det", self.max_det)):
            if value is not None and value < 1:
                raise BadPrompt(f"{noun} must be at least 1, got {value}")
        if self.again is not None and self.again < 0:
            raise BadPrompt(f"again must be a size in pixels, or 0, got {self.again}")


@dataclass(frozen=True, eq=False)
class FastSAMFeatures:
    """The N candidates of one image, best first, on the CPU.

    boxes: float32 (N, 4) xyxy pixels of the image. confidence: float32 (N,). coefficients: float32
    (N, M). prototypes: float32 (M, h, w) over the letterboxed image. edges: options for fitting
    masks to the image's edges, if any.
    """

    boxes: torch.Tensor
    confidence: torch.Tensor
    coefficients: torch.Tensor
    prototypes: torch.Tensor
    image: Image
    edges: EdgeOptions | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Return the image's (H, W)."""
        return self.image.size

    @cached_property
    def proposals(self) -> Proposals:
        """Assemble the candidates' masks, once, without those that are empty inside their box."""
        masks = assemble(self.prototypes, self.coefficients, self.boxes, self.size)
        if self.edges:
            good = (self.confidence.numpy() >= self.edges.quality) & (masks.areas > 0)
            grid = self.prototypes.flatten(1)
            cells = (self.prototypes.shape[1], self.prototypes.shape[2])
            step = max(1, round(1 / prototype_gain(cells, self.size)))
            coarse = (
                (row, (self.coefficients[row] @ grid).view(cells).numpy(), self.boxes[row].numpy())
                for row in np.flatnonzero(good).tolist()
            )
            frame = Frame(prototype_sampler(cells, self.size), self.image, step)
            masks = refine(masks, patches(coarse, frame, self.edges), frame, self.edges)
        return Proposals(masks, self.confidence.numpy())[masks.areas > 0]


# candidates (5 + M, A): xywh in pixels of the frame, confidence, coefficients;
# prototypes (M, h, w); the frame's (H, W)
Detections = tuple[torch.Tensor, torch.Tensor, tuple[int, int]]


def join(
    one: Detections, other: Detections, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Join the detections in two frames of an image of ``size``, in the first frame.

    Returns candidates (5 + 2M, A + A') and prototypes (2M, h, w). A candidate's coefficients are 0
    for the other frame's prototypes; those of the second are resampled on the first's grid.
    """
    gain, left, top = _placement(one[2], size)
    other_gain, other_left, other_top = _placement(other[2], size)
    ratio = gain / other_gain
    moved = other[0].clone()
    moved[:4] *= ratio
    moved[0] += left - other_left * ratio
    moved[1] += top - other_top * ratio
    zeros = [torch.zeros(len(other[1]), one[0].shape[1]), torch.zeros(len(one[1]), moved.shape[1])]
    first, second = torch.cat([one[0], zeros[0]]), torch.cat([moved[:5], zeros[1], moved[5:]])
    positions = [
        ((torch.arange(count) + 0.5) * full / count - start) / ratio + other_start
        for count, full, start, other_start in zip(
            one[1].shape[1:], one[2], (top, left), (other_top, other_left), strict=True
        )
    ]
    rows, columns = (at * (2 / full) - 1 for at, full in zip(positions, other[2], strict=True))
    grid = torch.stack(
        [columns.expand(len(rows), -1), rows[:, None].expand(-1, len(columns))], dim=2
    )[None]
    sampled = F.grid_sample(other[1][None], grid, padding_mode="border", align_corners=False)[0]
    return torch.cat([first, second], dim=1), torch.cat([one[1], sampled])


def _placement(frame: tuple[int, int], size: tuple[int, int]) -> tuple[float, int, int]:
    """Return scale, left and top of an image of ``size`` (H, W) letterboxed into a frame."""
    gain = min(frame[0] / size[0], frame[1] / size[1])
    # ultralytics puts an odd pixel of padding after the image; 0.1 decides the halves
    top, left = (
        round((full - round(side * gain)) / 2 - 0.1) for full, side in zip(frame, size, strict=True)
    )
    return gain, left, top


class FastSAM:
    """Propose masks with a FastSAM checkpoint.

    path: ultralytics' ``.pt`` or a folder written by ``save``. device: a torch device name. trust:
    True allows a pickled checkpoint with other than ultralytics' own types, False allows only those
    of the manifest. Raises WeightsMissing, WeightsCorrupt, Unsupported.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        trust: bool | None = None,
        options: FastSAMOptions = FastSAMOptions(),
    ) -> None:
        self.options = options
        network, config = load(Path(path), trust=trust)
        self.device = torch.device(device)
        self.network: Any = network.to(self.device, memory_format=torch.channels_last)
        stored = _stored(Path(path), config)
        self.image_size = self.options.image_size or stored.image_size or 1024
        self.confidence = _first(self.options.confidence, stored.confidence, 0.4)
        self.iou = _first(self.options.iou, stored.iou, 0.9)
        self.max_det = int(_first(self.options.max_det, stored.max_det, 300))
        self.edges = self.options.edges or stored.edges
        stride = max(int(self.network.stride.max()), 32)
        sizes = (self.image_size, int(_first(self.options.again, stored.again, 0)))
        self.letterboxes = [letterbox(size, stride) for size in sizes if size]
        self._lock = Lock()  # the network stores the anchors of its last input shape

    @torch.inference_mode()
    def encode(self, image: Image) -> FastSAMFeatures:
        """Run the network on the letterboxed image at each size and keep its best candidates."""
        from ultralytics.utils.ops import scale_boxes

        prediction, prototypes, frame = self._detect(image, self.letterboxes[0])
        for box in self.letterboxes[1:]:
            prediction, prototypes = join(
                (prediction, prototypes, frame), self._detect(image, box), image.size
            )
        found = self._suppress(prediction)
        boxes = scale_boxes(frame, found[:, :4], image.size)
        return FastSAMFeatures(boxes, found[:, 4], found[:, 5:], prototypes, image, self.edges)

    def _detect(self, image: Image, box: Callable[[Array], Array]) -> Detections:
        # interleaved RGB viewed as (1, 3, h, w) is already channels-last
        pixels = torch.from_numpy(box(image.pixels)).to(self.device).permute(2, 0, 1)
        pixels = pixels[None].float() / 255
        low = self.options.precision == "bfloat16"
        with self._lock, torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            prediction, prototypes = self.network(pixels)[0]
        return (
            prediction[0].float().cpu(),
            prototypes[0].float().cpu(),
            (pixels.shape[2], pixels.shape[3]),
        )

    def decode(self, features: FastSAMFeatures, prompt: Prompt) -> Proposals:
        """Select among the candidates of ``encode``.

        Everything: all, best first. Boxes: row i is the candidate of highest IoU with box i, or an
        empty mask of quality 0 when none overlaps it. Points: one object, as a ranking of whole
        candidates, best first, never a union: those that contain the most foreground points (all
        where any does) and no background point; possibly none. Raises BadPrompt for a prompt
        outside the image, Unsupported for a mask to refine.
        """
        prompt.check(features.size)
        proposals = features.proposals
        if isinstance(prompt, Boxes):
            return space.nearest_to_boxes(proposals, prompt.xyxy)
        if isinstance(prompt, Everything):
            return space.keep_within(proposals, prompt)
        if prompt.mask is not None:
            raise Unsupported("FastSAM cannot refine a mask; use a SAM proposer")
        return space.at_points(proposals, prompt)

    def _suppress(self, prediction: torch.Tensor) -> torch.Tensor:
        """Keep confident candidates (5 + M, A) after suppression: (N, 5 + M), xyxy for xywh."""
        confident = prediction[:, prediction[4] > self.confidence].T
        half = confident[:, 2:4] / 2
        boxes = torch.cat([confident[:, :2] - half, confident[:, :2] + half], dim=1)
        kept = suppress(boxes.numpy(), confident[:, 4].numpy(), self.iou, self.max_det)
        return torch.cat([boxes, confident[:, 4:]], dim=1)[kept]


def _first(*values: float | None) -> float:
    return next(float(value) for value in values if value is not None)


def _stored(path: Path, config: dict[str, Any]) -> FastSAMOptions:
    """Read the options stored with a network; raise WeightsCorrupt for invalid ones."""
    with reading(path, "a configuration"):
        stored = {name: config[name] for name in _STORED if name in config}
        try:
            options = described(FastSAMOptions, stored, {"image_size": _LARGEST, "again": _LARGEST})
        except BadPrompt as error:  # the error of a user's option, but here the file is at fault
            raise WeightsCorrupt(f"{path}: {error}") from error
        return replace(
            options, edges=described(EdgeOptions, config["edges"]) if "edges" in config else None
        )
