"""Give a model a patch head to train, which begins as the CLIP's own projection of each patch."""

from __future__ import annotations

from dataclasses import replace

import torch

from segclip.encoders import patches
from segclip.errors import Unsupported

from .start import Start


def with_head(
    start: Start, size: int, stride: int, *, scorer: str
) -> tuple[torch.nn.Module, patches.PatchHead, Start]:
    """Give a copy of the image tower that steps ``stride`` px a patch (0 for its own), a head, and
    how both are served.

    scorer: how regions are embedded by the patches, one of ``scoring.scorers.SCORERS``. Raises
    Unsupported where the tower cannot see images of ``size`` px.
    """
    visual = start.model.visual.eval()
    device = next(visual.parameters()).device
    tower = patches.finer(visual, stride)
    try:
        with torch.no_grad():
            width = patches.look(tower, torch.zeros(1, 3, size, size, device=device)).shape[-1]
    except (RuntimeError, AssertionError) as error:
        raise Unsupported(
            f"{start.checkpoint.name} cannot look at {size} px; leave --side out ({error})"
        ) from None
    told = {"width": int(width), "side": size, "stride": stride}
    checkpoint = start.checkpoint
    head = patches.PatchHead(checkpoint.model_cfg["embed_dim"], **told).to(device)
    head.start_at(patches.projection_of(visual))
    serving = replace(checkpoint.serving, scorer=scorer, calibrated=False)
    config = {**checkpoint.model_cfg, "patch_cfg": told}
    return (
        tower,
        head,
        replace(start, checkpoint=replace(checkpoint, model_cfg=config, serving=serving)),
    )
