"""Align patches with texts, tower and text frozen: PACL (Mukhoti et al. 2023). One pass gives a heat map of any text.

    python -m train.pacl runs/shapes --start file:runs/clip --out runs/pacl

The compatibility of an image with a text is the cosine of the text with the patches' mean, weighted by a softmax of
their own cosines (equations 2 and 3 there); it takes part in the symmetric InfoNCE. The softmax is sharpened by SHARP:
with plain cosines, which differ by less than 2, it would be almost even.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import typer

from segclip.encoders import heads
from segclip.encoders.heads import PatchHead

from . import command, losses, processes
from .captions import Item
from .contrastive import Contrastive, Recipe, parts_of
from .feed import Batch
from .judge import examples, recalls
from .loop import Judged, Loop, Settings
from .loop import start as begin_loop
from .start import Start, trained

SHARP = 10.0


def compatibility(patches: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Compare B images by their unit patches (B, P, D) with unit texts (T, D): cosines (B, T)."""
    cosines = torch.einsum("bpd,td->btp", patches, texts)
    weights = (SHARP * cosines).softmax(dim=-1)
    return torch.einsum("btd,td->bt", F.normalize(weights @ patches, dim=-1), texts)


class Pacl(Contrastive):
    """Train a patch head on a frozen model."""

    def __init__(
        self, start: Start, parts: tuple[Sequence[Item], Sequence[Item]], recipe: Recipe, settings: Settings
    ) -> None:
        super().__init__(start, parts, recipe, settings)
        self.model.requires_grad_(False).eval()
        with torch.no_grad():
            width = self.patches(torch.from_numpy(self.held_pixels[:1])).shape[-1]
        self.network = PatchHead(width, start.checkpoint.model_cfg["embed_dim"]).to(self.device)

    def groups(self) -> list[dict[str, Any]]:
        """Train the head alone."""
        return [{"params": list(self.network.parameters()), "lr": self.settings.lr}]

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give the frozen tower's patches of uint8 (B, S, S, 3): (B, h, w, C)."""
        light = (pixels.to(self.device, torch.float32) / 255 - self.mean) / self.std
        return heads.patches(self.model.visual, light.permute(0, 3, 1, 2))

    def backward(self, batch: Batch) -> torch.Tensor:
        """Take the gradients of a batch and give its loss."""
        keys = losses.Keys(*(part.to(self.device) for part in vars(batch.keys).values()))
        with torch.no_grad():
            patches, texts = self.patches(batch.pixels), self.say(batch.tokens)
        seen = self.network(patches).flatten(1, 2)  # (B, P, D)
        every_patch, every_text = processes.gather(seen), processes.gather(texts)
        scale = self.model.logit_scale.exp().clamp(max=100)
        by_image, by_text = compatibility(seen, every_text), compatibility(every_patch, texts).T
        loss = losses.both_ways(scale * by_image, scale * by_text, keys)
        loss.backward()
        return loss.detach()

    def judge(self) -> Judged:
        """Measure recall by the compatibility, on the held-out images."""
        tokens = self.held_texts.tokens  # (T, K, L)
        with torch.inference_mode():
            said = self.say(tokens.flatten(0, 1)).view(*tokens.shape[:2], -1).mean(dim=1)
            said = F.normalize(said, dim=-1)
            rows = torch.from_numpy(self.held_pixels).split(32)
            parts = [compatibility(self.network(self.patches(part)).flatten(1, 2), said) for part in rows]
        similarity = torch.cat(parts).cpu().numpy()
        right = np.zeros(similarity.shape, bool)
        for row, item in enumerate(self.held_out):
            right[row, self.held_texts.of(item)] = True
        picture = examples(self.held_pixels, self.held_texts.texts, similarity, right)
        return Judged(recalls(similarity, right), picture)

    def save(self, folder: Path) -> None:
        """Write the frozen model and the head beside it, for serving by dense features."""
        serving = replace(self.start.checkpoint.serving, scorer="dense")
        checkpoint = replace(self.start.checkpoint, serving=serving)
        replace(self.start, checkpoint=checkpoint).save(self.model, folder)
        heads.save(self.network, folder)


def main(
    data: Annotated[Path, typer.Argument(help="Images with captions, as for train.contrastive.")],
    start: Annotated[str, typer.Option(help="The CLIP, which stays as it is: file:RUN, MODEL/TAG, MODEL/file:PATH.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; file:OUT serves it.")],
    images: Annotated[Path | None, typer.Option(help="Folder of the images, where not beside DATA.")] = None,
    held_out: Annotated[float, typer.Option(help="Share of images that judge, where DATA has no split.")] = 0.1,
    epochs: int = 10,
    batch: int = 64,
    lr: float = 5e-4,
    seed: int = 0,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in OUT.")] = False,
) -> None:
    """Train a patch head on captions and write it, with its model, for serving."""
    cv2.setNumThreads(1)
    settings = Settings(epochs=epochs, batch=batch, lr=lr, seed=seed, weight_decay=0.2)
    parts = parts_of(data, images, share=held_out, skip_bad=False)
    with processes.joined():
        begun = trained(start)
        torch.manual_seed(seed)
        task = Pacl(begun, parts, Recipe(), settings)
        begin_loop(Loop(task, out, settings, {"data": str(data), "model": start, **asdict(settings)}), resume=resume)


if __name__ == "__main__":
    command.run(main)
