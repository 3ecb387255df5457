"""Align patches with texts, tower and text frozen: PACL (Mukhoti et al. 2023). One pass gives a heat map of any text.

    python -m train.pacl runs/pictures --start mini-clip --side 160 --stride 8 --out runs/pacl
    segclip heat desk.jpg "a red apple" --encoder file:runs/pacl

The compatibility of an image with a text is the cosine of the text with the patches' mean, weighted by a softmax of
their own cosines (equations 2 and 3 there); it takes part in the symmetric InfoNCE. The softmax is sharpened by SHARP:
plain cosines differ by less than 2, and it would be almost even. The head begins as the CLIP's own projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import typer

from segclip.encoders import patches

from . import command, losses, processes
from .captions import Item
from .contrastive import Contrastive, Recipe, parts_of
from .feed import AUGMENTS, Batch
from .heads import with_head
from .judge import examples, recalls
from .loop import Judged, Loop, Settings
from .loop import start as begin_loop
from .start import Start, trained

SHARP = 10.0


def compatibility(seen: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Compare B images by their unit patches (B, P, D) with unit texts (T, D): cosines (B, T)."""
    cosines = torch.einsum("bpd,td->btp", seen, texts)
    weights = (SHARP * cosines).softmax(dim=-1)
    return torch.einsum("btd,td->bt", F.normalize(weights @ seen, dim=-1), texts)


class Pacl(Contrastive):
    """Train a patch head on a frozen model. stride: px from patch to patch, 0 for the tower's own."""

    def __init__(
        self,
        start: Start,
        parts: tuple[Sequence[Item], Sequence[Item]],
        recipe: Recipe,
        settings: Settings,
        *,
        stride: int = 0,
    ) -> None:
        super().__init__(start, parts, recipe, settings)
        self.model.requires_grad_(False).eval()
        self.tower, self.network, self.start = with_head(self.start, self.size, stride, scorer="dense")

    def _look(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give the frozen tower's patches of uint8 (B, S, S, 3): (B, h, w, C)."""
        light = (pixels.to(self.device, torch.float32) / 255 - self.mean) / self.std
        with torch.no_grad():
            return patches.look(self.tower, light.permute(0, 3, 1, 2))

    def groups(self) -> list[dict[str, Any]]:
        """Train the head alone."""
        return [{"params": list(self.network.parameters()), "lr": self.settings.lr}]

    def backward(self, batch: Batch) -> torch.Tensor:
        """Take the gradients of a batch and give its loss."""
        keys = losses.Keys(*(part.to(self.device) for part in vars(batch.keys).values()))
        with torch.no_grad():
            texts = self.say(batch.tokens)
        seen = self.network(self._look(batch.pixels)).flatten(1, 2)  # (B, P, D)
        by_image = compatibility(seen, processes.gather(texts))
        by_text = compatibility(processes.gather(seen), texts).T
        scale = self.model.logit_scale.exp()
        loss = losses.both_ways(scale * by_image, scale * by_text, keys)
        loss.backward()
        return loss.detach()

    def judge(self) -> Judged:
        """Measure recall by the compatibility, on the held-out images."""
        tokens = self.held_texts.tokens  # (T, K, L)
        with torch.no_grad():
            said = F.normalize(self.say(tokens.flatten(0, 1)).view(*tokens.shape[:2], -1).mean(dim=1), dim=-1)
            rows = torch.from_numpy(self.held_pixels).split(32)
            found = [compatibility(self.network(self._look(part)).flatten(1, 2), said) for part in rows]
        similarity = torch.cat(found).cpu().numpy()
        right = np.zeros(similarity.shape, bool)
        for row, item in enumerate(self.held_out):
            right[row, self.held_texts.of(item)] = True
        return Judged(recalls(similarity, right), examples(self.held_pixels, self.held_texts.texts, similarity, right))

    def save(self, folder: Path) -> None:
        """Write the frozen model with the head in it, for serving by dense features."""
        self.model.patch_head = self.network
        self.start.save(self.model, folder)
        del self.model.patch_head


def main(
    data: Annotated[Path, typer.Argument(help="Images with captions, as for train.contrastive.")],
    start: Annotated[str, typer.Option(help="The CLIP, which stays as it is: mini-clip, file:RUN, MODEL/TAG.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; file:OUT serves it.")],
    images: Annotated[Path | None, typer.Option(help="Folder of the images, where not beside DATA.")] = None,
    side: Annotated[int, typer.Option(help="Of the images; 0 for the CLIP's own, a must for transformers.")] = 0,
    stride: Annotated[int, typer.Option(help="Px from patch to patch of a timm ResNet; 0 for its own.")] = 0,
    augment: Annotated[str, typer.Option(help=f"{', '.join(AUGMENTS)}.")] = "none",
    captions_each: Annotated[int, typer.Option(help="Captions of an image in a batch.")] = 1,
    held_out: Annotated[float, typer.Option(help="Share of images that judge, where DATA has no split.")] = 0.1,
    epochs: int = 10,
    batch: int = 64,
    lr: float = 5e-4,
    warm_up: Annotated[int, typer.Option(help="Steps.")] = 20,
    weight_decay: float = 0.2,
    seed: int = 0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out missing images and empty captions.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in OUT.")] = False,
) -> None:
    """Train a patch head on captions and write it, with its model, for serving."""
    cv2.setNumThreads(1)
    settings = Settings(epochs=epochs, batch=batch, lr=lr, warm_up=warm_up, seed=seed, weight_decay=weight_decay)
    recipe = Recipe(augment=augment, captions=captions_each, side=side)
    parts = parts_of(data, images, share=held_out, skip_bad=skip_bad)
    with processes.joined():
        begun = trained(start)
        torch.manual_seed(seed)
        task = Pacl(begun, parts, recipe, settings, stride=stride)
        told = {"data": str(data), "model": start, "stride": stride, **asdict(recipe), **asdict(settings)}
        begin_loop(Loop(task, out, settings, told), resume=resume)


if __name__ == "__main__":
    command.run(main)
