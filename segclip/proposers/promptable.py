"""Answer points, boxes and "everything" with a promptable network: SAM, MobileSAM or SAM 2.1.

Segment Anything, Kirillov et al. 2023, https://arxiv.org/abs/2304.02643.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..errors import BadPrompt
from ..types import Boxes, Masks, Points, Prompt, Proposals
from .edges import EdgeOptions, Frame, patches, refine
from .grid import GridOptions, propose_everything
from .network import Clicks, Features, Network
from .refiner import FocusOptions, GivenPrompt, Refiner, refined_patches


@dataclass(frozen=True)
class SAMOptions:
    """Options of a promptable network.

    multimask: several masks for each ``Points`` (whole, part, subpart) or one; None returns several
    for a single click, which is ambiguous, and one where more is known. boxes_per_batch: maximum of
    boxes decoded at a time. grid: options for "everything". focus: let the network's refiner, if it
    has one, refine the mask of a box and the best mask of a click. edges: fit those masks to the
    image's edges. SAM does neither.
    """

    multimask: bool | None = None
    boxes_per_batch: int = 64
    grid: GridOptions = field(default_factory=GridOptions)
    edges: EdgeOptions | None = None
    focus: FocusOptions | None = None


class Promptable(Network):
    """Answer prompts with the network of a subclass."""

    options: SAMOptions
    refiner: Refiner | None = None

    def decode(self, features: Features, prompt: Prompt) -> Proposals:
        """Run the prompt encoder and the mask decoder.

        Points: every mask the network predicts for the object, best first. Boxes: row i belongs to
        box i. Everything: a filtered grid of clicks. Raises BadPrompt for a prompt outside the
        image.
        """
        size = features.image.size
        prompt.check(size)
        if isinstance(prompt, Boxes):
            return self._boxes(features, prompt)
        if isinstance(prompt, Points):
            return self._points(features, prompt)
        return propose_everything(self, features, prompt, self.options.grid)

    def _points(self, features: Features, prompt: Points) -> Proposals:
        size = features.image.size
        clicks = Clicks(
            self.to_frame(prompt.xy, size)[None] if len(prompt.xy) else None,
            torch.from_numpy(prompt.labels).to(self.device)[None] if len(prompt.xy) else None,
            None
            if prompt.box is None
            else self.to_frame(prompt.box.reshape(1, 2, 2), size).flatten(1),
            None
            if prompt.mask is None
            else torch.from_numpy(prompt.mask).to(self.device)[None, None],
        )
        single = len(prompt.xy) == 1 and prompt.box is None and prompt.mask is None
        multimask = single if self.options.multimask is None else self.options.multimask
        given = GivenPrompt(np.column_stack([prompt.xy, prompt.labels]), prompt.box)
        found = self._decoded(features, clicks, [given], multimask=multimask)
        order = np.argsort(-found.quality, kind="stable")
        return found[order[found.masks.areas[order] > 0]]

    def _boxes(self, features: Features, prompt: Boxes) -> Proposals:
        corners = self.to_frame(prompt.xyxy.reshape(-1, 2, 2), features.image.size).flatten(1)
        prompts = [GivenPrompt(np.zeros((0, 3)), box) for box in prompt.xyxy]
        batch = self.batch_size(self.options.boxes_per_batch)
        parts = [
            self._decoded(
                features, Clicks(boxes=chunk), prompts[row * batch :][: len(chunk)], multimask=False
            )
            for row, chunk in enumerate(corners.split(batch))
        ]
        return Proposals.join(parts)

    def _decoded(
        self, features: Features, clicks: Clicks, prompts: Sequence[GivenPrompt], *, multimask: bool
    ) -> Proposals:
        """Decode B prompts: ``clicks`` in the network's frame, ``prompts`` in image pixels."""
        try:
            logits, quality = self.predict(features.maps, clicks, multimask=multimask)
        except RuntimeError as error:
            if clicks.masks is None:
                raise
            shape = tuple(clicks.masks.shape[-2:])
            raise BadPrompt(
                f"the mask to refine has shape {shape}; pass a row of this proposer's own logits"
            ) from error
        cells = logits.flatten(0, 1).float().cpu().numpy()
        reach = [features.sampler.reach(grid > 0) for grid in cells]
        windows = [
            (box[0], box[1], features.sampler.mask(grid, box))
            for grid, box in zip(cells, reach, strict=True)
        ]
        masks = Masks.from_windows(windows, features.image.size)
        found = Proposals(masks, quality.flatten().float().cpu().numpy(), cells)
        best = quality.argmax(dim=1).cpu().numpy() + np.arange(len(quality)) * quality.shape[1]
        by_row = dict(zip(best.tolist(), prompts, strict=True))
        return replace(found, masks=self._refined(features, found, by_row))

    def _refined(
        self, features: Features, found: Proposals, prompts: dict[int, GivenPrompt]
    ) -> Masks:
        """Refine the masks of the rows in ``prompts`` by the refiner and the image's edges."""
        focus, edges, logits = self.options.focus, self.options.edges, found.logits
        if logits is None or not (focus or edges):
            return found.masks
        least = min(options.quality for options in (focus, edges) if options)
        good = (found.quality >= least) & (found.masks.areas > 0)
        rows = [row for row in prompts if good[row]]
        step = max(1, round(1 / max(self.scale(features.image.size))))
        frame = Frame(features.sampler, features.image, step)
        if self.refiner and focus:
            coarse = [(row, logits[row], prompts[row]) for row in rows]
            fine = refined_patches(self.refiner, coarse, found.masks, frame)
            return refine(found.masks, fine, frame, edges)
        if edges is None:
            return found.masks
        coarse_boxes = ((row, logits[row], found.masks.boxes[row]) for row in rows)
        return refine(found.masks, patches(coarse_boxes, frame, edges), frame, edges)
