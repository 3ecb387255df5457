"""Answer points, boxes and "everything" with a promptable network: what SAM, MobileSAM and SAM 2.1
have in common.

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
from .refiner import FocusOptions, Refiner, Said, look_again


@dataclass(frozen=True)
class SAMOptions:
    """Say how a promptable network answers.

    multimask: several masks for each ``Points`` (whole, part, subpart) or one; None gives several
    for a click alone, which may mean any of them, and one where more is known. boxes_per_batch:
    boxes decoded at a time, at most. grid: how "everything" is asked for. focus: let the network's
    refiner, if it has one, look again at the mask of a box and the best of a click's. edges: fit
    those masks to the picture's edges. SAM does neither.
    """

    multimask: bool | None = None
    boxes_per_batch: int = 64
    grid: GridOptions = field(default_factory=GridOptions)
    edges: EdgeOptions | None = None
    focus: FocusOptions | None = None


class Promptable(Network):
    """Answer prompts; a subclass brings the network."""

    options: SAMOptions
    refiner: Refiner | None = None

    def decode(self, features: Features, prompt: Prompt) -> Proposals:
        """Run the prompt encoder and the mask decoder.

        Points: every mask the network gives for the object, best first. Boxes: row i is box i's,
        decoded in batches. Everything: a grid of clicks, filtered. Raises BadPrompt for a prompt
        outside the image.
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
            self.framed(prompt.xy, size)[None] if len(prompt.xy) else None,
            torch.from_numpy(prompt.labels).to(self.device)[None] if len(prompt.xy) else None,
            None
            if prompt.box is None
            else self.framed(prompt.box.reshape(1, 2, 2), size).flatten(1),
            None
            if prompt.mask is None
            else torch.from_numpy(prompt.mask).to(self.device)[None, None],
        )
        single = len(prompt.xy) == 1 and prompt.box is None and prompt.mask is None
        multimask = single if self.options.multimask is None else self.options.multimask
        given = Said(np.column_stack([prompt.xy, prompt.labels]), prompt.box)
        found = self._decoded(features, clicks, [given], multimask=multimask)
        order = np.argsort(-found.quality, kind="stable")
        return found[order[found.masks.areas[order] > 0]]

    def _boxes(self, features: Features, prompt: Boxes) -> Proposals:
        corners = self.framed(prompt.xyxy.reshape(-1, 2, 2), features.image.size).flatten(1)
        said = [Said(np.zeros((0, 3)), box) for box in prompt.xyxy]
        together = self.together(self.options.boxes_per_batch)
        parts = [
            self._decoded(
                features, Clicks(boxes=chunk), said[row * together :][: len(chunk)], multimask=False
            )
            for row, chunk in enumerate(corners.split(together))
        ]
        return Proposals.join(parts)

    def _decoded(
        self, features: Features, clicks: Clicks, said: Sequence[Said], *, multimask: bool
    ) -> Proposals:
        """Decode B prompts, also given in pixels of the image."""
        try:
            logits, quality = self.predict(features.maps, clicks, multimask=multimask)
        except RuntimeError as error:
            if clicks.masks is None:
                raise
            given = tuple(clicks.masks.shape[-2:])
            raise BadPrompt(
                f"the mask to refine is {given}; give a row of this proposer's own logits"
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
        return replace(
            found, masks=self._closely(features, found, dict(zip(best.tolist(), said, strict=True)))
        )

    def _closely(self, features: Features, found: Proposals, said: dict[int, Said]) -> Masks:
        """Cut the best answers anew, given by their rows with what was said: by the refiner, at the
        picture's edges.
        """
        focus, edges, logits = self.options.focus, self.options.edges, found.logits
        if logits is None or not (focus or edges):
            return found.masks
        least = min(options.quality for options in (focus, edges) if options)
        rows = [row for row in said if found.quality[row] >= least and found.masks.areas[row] > 0]
        step = max(1, round(1 / max(self.scale(features.image.size))))
        frame = Frame(features.sampler, features.image, step)
        if self.refiner and focus:
            asked = [(row, logits[row], said[row]) for row in rows]
            return refine(
                found.masks, look_again(self.refiner, asked, found.masks, frame), frame, edges
            )
        if edges is None:
            return found.masks
        given = ((row, logits[row], found.masks.boxes[row]) for row in rows)
        return refine(found.masks, patches(given, frame, edges), frame, edges)
