"""Align patches with texts, tower and text frozen: PACL (Mukhoti et al. 2023). One pass gives a
heat map of any text.

    python -m train.pacl runs/few --start mini-clip --side 384 --patches 60 --captions-each 3 \
        --out runs/pacl
    segclip heat desk.jpg "a red apple" --encoder file:runs/pacl

The compatibility of an image with a text is the cosine of the text with the patches' mean, weighted
by a softmax of their own cosines (equations 2 and 3 there); it takes part in the symmetric InfoNCE.
The softmax is sharpened by SHARP: plain cosines differ by less than 2, and it would be almost even.
The head begins as the CLIP's own projection.

Beyond the paper, the texts the CLIP is served with as backgrounds count as captions of every image:
what no caption names has a text to go to, and heat maps end where things do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import typer

from segclip.encoders import patches, tokenizers

from .captions.tables import Item
from .contrastive import Contrastive, Recipe, parts_of
from .engine import command, limits, losses, processes
from .engine.feed import AUGMENTS, Batch, Texts
from .engine.heads import with_head
from .engine.judge import examples, recalls
from .engine.loop import Judged, Loop, Settings
from .engine.loop import start as begin_loop
from .engine.options import (
    Captioned,
    CaptionsEach,
    HeldOut,
    Images,
    Out,
    Resume,
    Side,
    SkipBad,
    Stride,
    WarmUp,
)
from .engine.start import Start, trained

SHARP = 5.0
MEMORY = 2_000_000_000  # bytes of patches kept; what does not fit is looked at again each epoch


def compatibility(seen: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Compare B images by their unit patches (B, P, D) with unit texts (T, D): cosines (B, T)."""
    cosines = torch.einsum("bpd,td->btp", seen, texts)
    weights = (SHARP * cosines).softmax(dim=-1)
    return torch.einsum("btd,td->bt", F.normalize(weights @ seen, dim=-1), texts)


@dataclass(frozen=True)
class Grid:
    """Say how patches lie. stride: px from one to the next, 0 for the tower's own. drawn: how many
    of an image take part in a step, 0 for all; fewer cost less, and others do the next time.
    """

    stride: int = 0
    drawn: int = 0

    def __post_init__(self) -> None:
        limits.check(
            {
                "--stride": (self.stride, limits.SIDE_OR_OWN),
                "--patches": (self.drawn, limits.NONE_OR_MORE),
            }
        )


class Pacl(Contrastive):
    """Train a patch head on a frozen model."""

    def __init__(
        self,
        start: Start,
        parts: tuple[Sequence[Item], Sequence[Item]],
        recipe: Recipe,
        settings: Settings,
        grid: Grid = Grid(),
    ) -> None:
        super().__init__(start, parts, recipe, settings)
        self.grid = grid
        self.model.requires_grad_(False).eval()
        self.tower, self.network, self.start = with_head(
            self.start, self.size, grid.stride, scorer="dense"
        )
        self.known: dict[int, torch.Tensor] = {}  # by row; held-out images below zero
        checkpoint = self.start.checkpoint
        self.backgrounds = torch.zeros(
            0, checkpoint.model_cfg["embed_dim"], device=self.device
        )  # (K, D)
        if checkpoint.serving.backgrounds:
            texts = Texts(
                checkpoint.serving.backgrounds,
                tokenizers.make_tokenizer(checkpoint),
                checkpoint.serving.templates,
            )
            self.backgrounds = self._tell(texts)

    def _look(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give the frozen tower's patches of uint8 (B, S, S, 3): (B, h, w, C)."""
        light = (pixels.to(self.device, torch.float32) / 255 - self.mean) / self.std
        with (
            torch.no_grad(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bfloat16),
        ):
            return patches.look(self.tower, light.permute(0, 3, 1, 2)).float()

    def _recall(self, rows: Sequence[int], pixels: torch.Tensor) -> torch.Tensor:
        """Give the patches (B, h, w, C) of images that look the same each time: the tower sees each
        of them once.
        """
        new = [place for place, row in enumerate(rows) if row not in self.known]
        looked = self._look(pixels[new]).half().cpu() if new else ()
        seen = {rows[place]: each for place, each in zip(new, looked, strict=True)}
        room = MEMORY // next(iter(seen.values())).nbytes if seen else 0
        for row in list(seen)[: max(0, room - len(self.known))]:
            self.known[row] = seen.pop(row).clone()  # of its own: a view would keep its whole batch
        return (
            torch.stack([seen[row] if row in seen else self.known[row] for row in rows])
            .to(self.device)
            .float()
        )

    @torch.no_grad()
    def _tell(self, texts: Texts) -> torch.Tensor:
        """Embed T texts, each as the mean over its templates: unit (T, D)."""
        said = self.say(texts.tokens.flatten(0, 1)).view(*texts.tokens.shape[:2], -1)
        return F.normalize(said.mean(dim=1), dim=-1)

    def groups(self) -> list[dict[str, Any]]:
        """Train the head alone."""
        return [{"params": list(self.network.parameters()), "lr": self.settings.lr}]

    def backward(self, batch: Batch) -> torch.Tensor:
        """Take the gradients of a batch and give its loss."""
        keys = losses.Keys(*(part.to(self.device) for part in vars(batch.keys).values()))
        with torch.no_grad():
            texts = self.say(batch.tokens)
        same = self.recipe.augment == "none"
        looked = (
            self._recall(batch.keys.images.tolist(), batch.pixels)
            if same
            else self._look(batch.pixels)
        )
        looked = looked.flatten(1, 2)  # (B, P, C)
        if self.grid.drawn:
            looked = looked[:, torch.randperm(looked.shape[1])[: self.grid.drawn].to(self.device)]
        seen = self.network(looked)  # (B, P, D)
        common = len(self.backgrounds)
        by_image = compatibility(seen, torch.cat([processes.gather(texts), self.backgrounds]))
        by_text = compatibility(processes.gather(seen), torch.cat([texts, self.backgrounds])).T
        scale = self.model.logit_scale.exp()
        loss = losses.both_ways(scale * by_image, scale * by_text, keys, common=common)
        loss.backward()
        return loss.detach()

    def judge(self) -> Judged:
        """Measure recall by the compatibility, on the held-out images."""
        said = self._tell(self.held_texts)
        with torch.no_grad():
            found = []
            for part in torch.arange(len(self.held_pixels)).split(32):
                looked = self._recall(
                    (-1 - part).tolist(), torch.from_numpy(self.held_pixels[part.numpy()])
                )
                found.append(compatibility(self.network(looked).flatten(1, 2), said))
        similarity = torch.cat(found).cpu().numpy()
        right = np.zeros(similarity.shape, bool)
        for row, item in enumerate(self.held_out):
            right[row, self.held_texts.of(item)] = True
        return Judged(
            recalls(similarity, right),
            examples(self.held_pixels, self.held_texts.texts, similarity, right),
        )

    def save(self, folder: Path) -> None:
        """Write the frozen model with the head in it, for serving by dense features."""
        self.model.patch_head = self.network
        self.start.save(self.model, folder)
        del self.model.patch_head


def main(
    data: Captioned,
    start: Annotated[
        str, typer.Option(help="The CLIP, which stays as it is: mini-clip, file:RUN, MODEL/TAG.")
    ],
    out: Out,
    images: Images = None,
    side: Side = 0,
    stride: Stride = 0,
    patches_each: Annotated[
        int, typer.Option("--patches", help="Of an image in a step, drawn anew; 0 for all.")
    ] = 0,
    augment: Annotated[
        str, typer.Option(help=f"{', '.join(AUGMENTS)}; none looks at each image once.")
    ] = "none",
    captions_each: CaptionsEach = 1,
    held_out: HeldOut = 0.1,
    epochs: int = 10,
    batch: int = 64,
    lr: float = 5e-4,
    warm_up: WarmUp = 20,
    weight_decay: float = 0.2,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Let the frozen tower compute in bfloat16.")
    ] = False,
    seed: int = 0,
    skip_bad: SkipBad = False,
    resume: Resume = False,
) -> None:
    """Train a patch head on captions and write it, with its model, for serving."""
    cv2.setNumThreads(1)
    settings = Settings(
        epochs=epochs,
        batch=batch,
        lr=lr,
        warm_up=warm_up,
        seed=seed,
        weight_decay=weight_decay,
        bfloat16=bfloat16,
    )
    recipe = Recipe(augment=augment, captions=captions_each, side=side)
    parts = parts_of(data, images, share=held_out, skip_bad=skip_bad)
    with processes.joined():
        begun = trained(start)
        torch.manual_seed(seed)
        grid = Grid(stride, patches_each)
        task = Pacl(begun, parts, recipe, settings, grid)
        told = {
            "data": str(data),
            "model": start,
            **asdict(grid),
            **asdict(recipe),
            **asdict(settings),
        }
        begin_loop(Loop(task, out, settings, told), resume=resume)


if __name__ == "__main__":
    command.run(main)
