"""Train a CLIP on images and captions, from scratch or from existing weights; any open_clip model.

    python -m train.contrastive ../shared/caltech-101 --model small --augment strong \
        --epochs 40 --out runs/caltech
    python -m train.contrastive flickr8k --start ViT-B-32/datacomp_xl_s13b_b90k --tune lora \
        --lr 2e-4 --out runs/flickr
    segclip segment desk.jpg "a red apple" --proposer mini --encoder file:runs/caltech

A run can be stopped at any moment and resumed with --resume. `torchrun --nproc-per-node 2 -m
train.contrastive ...` splits each batch over processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import typer

from segclip.encoders import checkpoints, text_tower, tokenizers
from segclip.errors import BadPrompt, UnknownName, Unsupported
from segclip.files import lines
from segclip.ranking import templates

from .captions import neighbours, tables
from .captions.neighbours import Neighbours
from .captions.tables import CaptionItem
from .engine import command, feed, limits, loop, losses, processes, sharding, tuning
from .engine.augment import AUGMENTS
from .engine.feed import CaptionBatch, CaptionTexts, Feed, FeedOptions
from .engine.judge import HeldOut, in_chunks
from .engine.loop import Loop, LoopSettings, Validation
from .engine.losses import LOSSES, Scale
from .engine.options import (
    Bfloat16,
    Captioned,
    CaptionsEach,
    Chunk,
    Ema,
    Fsdp,
    Hard,
    HeadRate,
    HeldOutShare,
    Images,
    ModelName,
    Out,
    Patience,
    Resume,
    Size,
    SkipBad,
    StartFrom,
    Template,
    TextRate,
    Tune,
    WarmUp,
)
from .engine.start import Start, begin
from .engine.tuning import Tuning


@dataclass(frozen=True)
class ContrastiveRecipe:
    """Settings besides the loop's.

    captions: per image in a batch. templates: sentences around a caption. side: px of the images, 0
    for the model's own. spread: shard the weights over the processes (FSDP). hard: nearest
    neighbours that join an image in its batch.
    """

    loss: str = "softmax"
    augment: str = "light"
    captions: int = 1
    templates: tuple[str, ...] = ("{}",)
    tuning: Tuning = field(default_factory=Tuning)
    side: int = 0
    spread: bool = False
    hard: int = 0

    def __post_init__(self) -> None:
        for kind, name, table in (
            ("loss", self.loss, LOSSES),
            ("augmentation", self.augment, AUGMENTS),
        ):
            if name not in table:
                raise UnknownName(f"unknown {kind} {name!r}; choose one of {', '.join(table)}")
        limits.check(
            {
                "--captions-each": (self.captions, limits.FEW),
                "--side": (self.side, limits.SIDE_OR_OWN),
                "--hard": (self.hard, limits.NONE_OR_MORE),
            }
        )
        templates.check(self.templates)
        if problem := next(
            (problem for each in self.templates if (problem := lines.fault(each))), ""
        ):
            raise BadPrompt(f"invalid --template: {problem}")
        if self.spread and self.tuning.what == "lora":
            raise Unsupported(
                "--fsdp does not support LoRA, which trains few weights; omit one of the two"
            )


class Contrastive:
    """Align a model's two towers; a task of the loop."""

    monitor = "R@1"

    def __init__(
        self,
        start: Start,
        parts: tuple[Sequence[CaptionItem], Sequence[CaptionItem]],
        recipe: ContrastiveRecipe,
        settings: LoopSettings,
    ) -> None:
        self.start, self.recipe, self.settings = start, recipe, settings
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        tokenizer = tokenizers.make_tokenizer(start.checkpoint)
        policy = start.checkpoint.serving.policy
        texts = CaptionTexts(feed.captions_of(parts[0]), tokenizer, recipe.templates)
        self.size = recipe.side or start.size
        options = FeedOptions(
            settings.batch, self.size, AUGMENTS[recipe.augment], recipe.captions, settings.seed
        )
        self.feed = Feed(parts[0], texts, options, policy)
        preprocess = checkpoints.preprocess_config(start.checkpoint, self.size)
        self.mean, self.std = (
            torch.tensor(v, device=self.device) for v in (preprocess.mean, preprocess.std)
        )
        self.held_out = HeldOut(parts[1], start.checkpoint, tokenizer, self.size)
        # FSDP supports no other layout
        layout = torch.contiguous_format if recipe.spread else torch.channels_last
        self.network = tuning.prepare(
            start.model.to(self.device, memory_format=layout), recipe.tuning
        )
        if recipe.spread:
            sharding.spread(self.network)
        self.model = tuning.plain(self.network)
        if recipe.hard:
            self.feed.neighbours = self._neighbours()

    def _neighbours(self) -> Neighbours:
        """Find neighbours by each image's first caption.

        The initial model embeds them, so that a resumed run finds the same.
        """
        firsts = [self.feed.texts.of(item)[0] for item in self.feed.items]
        used, places = np.unique(firsts, return_inverse=True)
        self.network.eval()
        embedded = in_chunks(self.embed_texts, self.feed.texts.tokens[used, 0])
        return Neighbours(places, neighbours.nearest(embedded), self.recipe.hard)

    def groups(self) -> list[dict[str, Any]]:
        """Group the trained parameters."""
        return tuning.groups(self.network, self.recipe.tuning, self.settings.lr)

    def steps(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.feed)

    def batches(self, epoch: int, first: int) -> Iterator[CaptionBatch]:
        """Yield an epoch's batches."""
        tuning.freeze_batch_norms(self.network)
        return self.feed.epoch(epoch, first)

    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed images uint8 (B, S, S, 3): unit rows (B, D)."""
        light = (pixels.to(self.device, torch.float32) / 255 - self.mean) / self.std
        embedded = self.model.encode_image(light.permute(0, 3, 1, 2))  # a channels-last view
        return F.normalize(embedded, dim=-1)

    def embed_texts(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed tokens (T, L): unit rows (T, D)."""
        return F.normalize(text_tower.encode(self.model, tokens.to(self.device)), dim=-1)

    def backward(self, batch: CaptionBatch) -> torch.Tensor:
        """Backpropagate a batch and return its loss."""
        keys = losses.Keys(*(part.to(self.device) for part in vars(batch.keys).values()))

        def embed(rows: slice) -> tuple[torch.Tensor, ...]:
            k = self.recipe.captions
            texts = slice(rows.start * k, rows.stop * k)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bfloat16):
                by_image = self.embed_images(batch.pixels[rows])
                by_text = self.embed_texts(batch.tokens[texts])
            return by_image.float(), by_text.float()

        def compare(images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
            bias = getattr(self.model, "logit_bias", None)
            return LOSSES[self.recipe.loss](
                images, texts, Scale(self.model.logit_scale.exp(), bias), keys
            )

        size = self.settings.chunk
        if size and size < batch.count:
            return losses.cached_backward(self.network, embed, (batch.count, size), compare)
        loss = compare(*embed(slice(0, batch.count)))
        loss.backward()
        return loss.detach()

    def validate(self) -> Validation:
        """Measure recall on the held-out images; a text is the mean over its serving templates."""
        images = in_chunks(self.embed_images, torch.from_numpy(self.held_out.pixels))
        texts = self.held_out.embed_texts(self.embed_texts)
        validation = self.held_out.judge(images @ texts.T)
        scale = float(self.model.logit_scale.detach().exp())
        return replace(validation, figures={**validation.figures, "logit scale": scale})

    def save(self, folder: Path) -> None:
        """Write the model for serving.

        Every process must call it where the model is sharded; the first one writes.
        """
        if not self.recipe.spread:
            self.start.save(tuning.merged(self.network), folder)
            return
        state = sharding.whole(self.network.state_dict())
        if processes.rank() == 0:
            model = checkpoints.make_model(self.start.checkpoint.model_cfg)
            model.load_state_dict(state)
            self.start.save(model, folder)


def parts_of(
    data: Path, folder: Path | None, *, share: float, skip_bad: bool
) -> tuple[list[CaptionItem], list[CaptionItem]]:
    """Read a data set and split it by image."""
    trained, validation = tables.split(tables.read(data, folder), share)
    return feed.check(trained, skip_bad=skip_bad), feed.check(validation, skip_bad=skip_bad)


def main(
    data: Captioned,
    out: Out,
    images: Images = None,
    model: ModelName = None,
    size: Size = None,
    start: StartFrom = None,
    tune: Tune = "full",
    rank: Annotated[int, typer.Option(help="Rank of LoRA.")] = 8,
    loss: Annotated[str, typer.Option(help="softmax (CLIP) or sigmoid (SigLIP).")] = "softmax",
    augment: Annotated[str, typer.Option(help="none, light, medium or strong.")] = "light",
    template: Template = None,
    captions_each: CaptionsEach = 1,
    hard: Hard = 0,
    held_out: HeldOutShare = 0.1,
    epochs: int = 10,
    batch: int = 64,
    chunk: Chunk = 0,
    accumulate: Annotated[int, typer.Option(help="Batches per step.")] = 1,
    lr: float = 5e-4,
    text_lr: TextRate = 1.0,
    head_lr: HeadRate = 1.0,
    warm_up: WarmUp = 50,
    weight_decay: float = 0.1,
    clip: Annotated[float, typer.Option(help="Maximum norm of the gradient.")] = 1.0,
    ema: Ema = 0.0,
    patience: Patience = 0,
    bfloat16: Bfloat16 = False,
    fsdp: Fsdp = False,
    seed: int = 0,
    skip_bad: SkipBad = False,
    resume: Resume = False,
) -> None:
    """Train a CLIP on captions and write it for serving."""
    cv2.setNumThreads(1)
    loop_of = (epochs, batch, chunk, accumulate, lr, warm_up, weight_decay, clip, ema, patience)
    settings = LoopSettings(*loop_of, seed, bfloat16)
    tuned = Tuning(tune, rank, text_lr, head_lr)
    recipe = ContrastiveRecipe(
        loss, augment, captions_each, tuple(template or ["{}"]), tuned, spread=fsdp, hard=hard
    )
    parts = parts_of(data, images, share=held_out, skip_bad=skip_bad)
    with processes.joined():
        begun = begin(model, start, size=size, seed=seed, sigmoid=loss == "sigmoid")
        torch.manual_seed(seed)  # for the initial weights of LoRA
        task = Contrastive(begun, parts, recipe, settings)
        record = {"data": str(data), "model": start or model or "small", "size": size}
        record |= asdict(recipe) | asdict(settings)
        loop.start(Loop(task, out, settings, record), resume=resume)


if __name__ == "__main__":
    command.run(main)
