"""Align patches with texts, tower and text frozen: PACL (Mukhoti et al. 2023).

The result is a heat map of any text in one pass.

    python -m train.pacl runs/few --start mini-clip --side 384 --patches 60 --captions-each 3 \
        --out runs/pacl
    segclip heat desk.jpg "a red apple" --encoder file:runs/pacl

The compatibility of an image with a text is the cosine of the text with the patches' mean, weighted
by a softmax of their own cosines (equations 2 and 3 there); it replaces the similarity in the
symmetric InfoNCE. The softmax is sharpened by SHARP: plain cosines differ by less than 2, and it
would be almost uniform. The head is initialised to the CLIP's own projection.

Beyond the paper, the CLIP's background texts count as captions of every image: patches that no
caption names have a text to match, and heat maps end at the edges of objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import torch
import torch.nn.functional as F
import typer

from segclip.encoders import patches, tokenizers

from .captions.tables import CaptionItem
from .contrastive import Contrastive, ContrastiveRecipe, parts_of
from .engine import command, limits, losses, processes
from .engine.augment import AUGMENTS
from .engine.feed import CaptionBatch, CaptionTexts
from .engine.heads import with_head
from .engine.loop import Loop, LoopSettings, Validation
from .engine.loop import start as begin_loop
from .engine.options import (
    Captioned,
    CaptionsEach,
    HeldOutShare,
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
MEMORY = 2_000_000_000  # bytes of cached patches; the others are computed again each epoch


def compatibility(patches_: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Compare B images by their unit patches (B, P, D) with unit texts (T, D): cosines (B, T)."""
    cosines = torch.einsum("bpd,td->btp", patches_, texts)
    weights = (SHARP * cosines).softmax(dim=-1)
    return torch.einsum("btd,td->bt", F.normalize(weights @ patches_, dim=-1), texts)


@dataclass(frozen=True)
class Grid:
    """Layout of the patches.

    stride: px from one to the next, 0 for the tower's own. drawn: random patches of an image in a
    step, 0 for all; fewer cost less.
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
        parts: tuple[Sequence[CaptionItem], Sequence[CaptionItem]],
        recipe: ContrastiveRecipe,
        settings: LoopSettings,
        grid: Grid = Grid(),
    ) -> None:
        super().__init__(start, parts, recipe, settings)
        self.grid = grid
        self.model.requires_grad_(False).eval()
        self.tower, self.network, self.start = with_head(
            self.start, self.size, grid.stride, scorer="dense"
        )
        self.known: dict[int, torch.Tensor] = {}  # by row; negative for held-out images
        checkpoint = self.start.checkpoint
        width = checkpoint.model_cfg["embed_dim"]
        self.backgrounds = torch.zeros(0, width, device=self.device)  # (K, D)
        if checkpoint.serving.backgrounds:
            texts = CaptionTexts(
                checkpoint.serving.backgrounds,
                tokenizers.make_tokenizer(checkpoint),
                checkpoint.serving.templates,
            )
            self.backgrounds = self._embed_mean(texts)

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the frozen tower's patches of uint8 (B, S, S, 3): (B, h, w, C)."""
        light = (pixels.to(self.device, torch.float32) / 255 - self.mean) / self.std
        with (
            torch.no_grad(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bfloat16),
        ):
            return patches.encode(self.tower, light.permute(0, 3, 1, 2)).float()

    def _cached(self, rows: Sequence[int], pixels: torch.Tensor) -> torch.Tensor:
        """Return the patches (B, h, w, C) of images that never change, computed once and cached."""
        new = [place for place, row in enumerate(rows) if row not in self.known]
        encoded = self._encode(pixels[new]).half().cpu() if new else ()
        fresh = {rows[place]: each for place, each in zip(new, encoded, strict=True)}
        room = MEMORY // next(iter(fresh.values())).nbytes if fresh else 0
        for row in list(fresh)[: max(0, room - len(self.known))]:
            self.known[row] = fresh.pop(row).clone()  # a view would keep its whole batch alive
        return (
            torch.stack([fresh[row] if row in fresh else self.known[row] for row in rows])
            .to(self.device)
            .float()
        )

    @torch.no_grad()
    def _embed_mean(self, texts: CaptionTexts) -> torch.Tensor:
        """Embed T texts, each as the mean over its templates: unit (T, D)."""
        each = self.embed_texts(texts.tokens.flatten(0, 1)).view(*texts.tokens.shape[:2], -1)
        return F.normalize(each.mean(dim=1), dim=-1)

    def groups(self) -> list[dict[str, Any]]:
        """Train only the head."""
        return [{"params": list(self.network.parameters()), "lr": self.settings.lr}]

    def backward(self, batch: CaptionBatch) -> torch.Tensor:
        """Backpropagate a batch and return its loss."""
        keys = losses.Keys(*(part.to(self.device) for part in vars(batch.keys).values()))
        with torch.no_grad():
            texts = self.embed_texts(batch.tokens)
        same = self.recipe.augment == "none"
        encoded = (
            self._cached(batch.keys.images.tolist(), batch.pixels)
            if same
            else self._encode(batch.pixels)
        )
        encoded = encoded.flatten(1, 2)  # (B, P, C)
        if self.grid.drawn:
            encoded = encoded[
                :, torch.randperm(encoded.shape[1])[: self.grid.drawn].to(self.device)
            ]
        embedded = self.network(encoded)  # (B, P, D)
        common = len(self.backgrounds)
        by_image = compatibility(embedded, torch.cat([processes.gather(texts), self.backgrounds]))
        by_text = compatibility(processes.gather(embedded), torch.cat([texts, self.backgrounds])).T
        scale = self.model.logit_scale.exp()
        loss = losses.both_ways(scale * by_image, scale * by_text, keys, common=common)
        loss.backward()
        return loss.detach()

    def validate(self) -> Validation:
        """Measure recall by compatibility on the held-out images."""
        texts, pixels = self._embed_mean(self.held_out.texts), self.held_out.pixels
        with torch.no_grad():
            found = []
            for part in torch.arange(len(pixels)).split(32):
                encoded = self._cached((-1 - part).tolist(), torch.from_numpy(pixels[part.numpy()]))
                found.append(compatibility(self.network(encoded).flatten(1, 2), texts))
        return self.held_out.judge(torch.cat(found).cpu().numpy())

    def save(self, folder: Path) -> None:
        """Write the frozen model with its patch head, for serving by dense features."""
        self.model.patch_head = self.network
        self.start.save(self.model, folder)
        del self.model.patch_head


def main(
    data: Captioned,
    start: Annotated[str, typer.Option(help="The frozen CLIP: mini-clip, file:RUN, MODEL/TAG.")],
    out: Out,
    images: Images = None,
    side: Side = 0,
    stride: Stride = 0,
    patches_each: Annotated[
        int, typer.Option("--patches", help="Random patches per image in a step; 0 for all.")
    ] = 0,
    augment: Annotated[
        str, typer.Option(help=f"{', '.join(AUGMENTS)}; none encodes each image only once.")
    ] = "none",
    captions_each: CaptionsEach = 1,
    held_out: HeldOutShare = 0.1,
    epochs: int = 10,
    batch: int = 64,
    lr: float = 5e-4,
    warm_up: WarmUp = 20,
    weight_decay: float = 0.2,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Run the frozen tower in bfloat16.")
    ] = False,
    seed: int = 0,
    skip_bad: SkipBad = False,
    resume: Resume = False,
) -> None:
    """Train a patch head on captions and write it, with its model, for serving."""
    cv2.setNumThreads(1)
    settings = LoopSettings(
        epochs=epochs,
        batch=batch,
        lr=lr,
        warm_up=warm_up,
        seed=seed,
        weight_decay=weight_decay,
        bfloat16=bfloat16,
    )
    recipe = ContrastiveRecipe(augment=augment, captions=captions_each, side=side)
    parts = parts_of(data, images, share=held_out, skip_bad=skip_bad)
    with processes.joined():
        begun = trained(start)
        torch.manual_seed(seed)
        grid = Grid(stride, patches_each)
        task = Pacl(begun, parts, recipe, settings, grid)
        record = {
            "data": str(data),
            "model": start,
            **asdict(grid),
            **asdict(recipe),
            **asdict(settings),
        }
        begin_loop(Loop(task, out, settings, record), resume=resume)


if __name__ == "__main__":
    command.run(main)
