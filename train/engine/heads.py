"""Add a trainable patch head to a model, initialised to the CLIP's own projection."""

from __future__ import annotations

from dataclasses import replace

import torch

from segclip.encoders import patches
from segclip.errors import Unsupported

from .start import Start


def with_head(
    start: Start, size: int, stride: int, *, scorer: str
) -> tuple[torch.nn.Module, patches.PatchHead, Start]:
    """Return a copy of the image tower, a patch head, and the start that serves both.

    stride: px per patch of the copy, 0 for its own. scorer: how regions are embedded from patches,
    one of ``scoring.scorers.SCORERS``. Raises Unsupported where the tower does not accept images of
    ``size`` px.
    """
    visual = start.model.visual.eval()
    device = next(visual.parameters()).device
    tower = patches.finer(visual, stride)
    try:
        with torch.no_grad():
            width = patches.encode(tower, torch.zeros(1, 3, size, size, device=device)).shape[-1]
    except (RuntimeError, AssertionError) as error:
        raise Unsupported(
            f"{start.checkpoint.name} cannot process images of {size} px; omit --side ({error})"
        ) from None
    config = {"width": int(width), "side": size, "stride": stride}
    checkpoint = start.checkpoint
    head = patches.PatchHead(checkpoint.model_cfg["embed_dim"], **config).to(device)
    head.start_at(patches.projection_of(visual))
    serving = replace(checkpoint.serving, scorer=scorer, calibrated=False)
    model_cfg = {**checkpoint.model_cfg, "patch_cfg": config}
    return (
        tower,
        head,
        replace(start, checkpoint=replace(checkpoint, model_cfg=model_cfg, serving=serving)),
    )
