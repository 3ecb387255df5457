"""Train a CLIP on images and captions, from nothing or from weights that are there; any model of
open_clip's.

    python -m train.contrastive ../shared/caltech-101 --model small --augment strong \
        --epochs 40 --out runs/caltech
    python -m train.contrastive flickr8k --start ViT-B-32/datacomp_xl_s13b_b90k --tune lora \
        --lr 2e-4 --out runs/flickr
    segclip segment desk.jpg "a red apple" --proposer mini --encoder file:runs/caltech

Stop it at any moment and go on with --resume. `torchrun --nproc-per-node 2 -m train.contrastive
...` shares each batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import typer
from open_clip.transform import image_transform_v2

from segclip.encoders import checkpoints, text_tower, tokenizers
from segclip.errors import BadPrompt, UnknownName, Unsupported
from segclip.files import lines
from segclip.ranking import templates

from .captions import neighbours, tables
from .captions.neighbours import Neighbours
from .captions.tables import Item
from .engine import command, feed, limits, loop, losses, processes, sharding, tuning
from .engine.feed import AUGMENTS, Batch, Feed, FeedOptions, Texts
from .engine.judge import examples, in_chunks, recalls
from .engine.loop import Judged, Loop, Settings
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
    HeldOut,
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

JUDGED = 2000  # held-out images looked at each epoch


@dataclass(frozen=True)
class Recipe:
    """Hold every setting but the loop's.

    captions: of an image in a batch. templates: sentences a caption is put in. side: px of the
    images, 0 for the model's own. spread: over the processes, each with a part of the weights
    (FSDP). hard: neighbours that join an image in its batch.
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
            raise BadPrompt(f"a --template cannot be read: {problem}")
        if self.spread and self.tuning.what == "lora":
            raise Unsupported(
                "--fsdp spreads what is large, and LoRA trains little; leave one of the two out"
            )


class Contrastive:
    """Train a model's two towers to agree; the task the loop runs."""

    monitor = "R@1"

    def __init__(
        self,
        start: Start,
        parts: tuple[Sequence[Item], Sequence[Item]],
        recipe: Recipe,
        settings: Settings,
    ) -> None:
        self.start, self.recipe, self.settings = start, recipe, settings
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        tokenizer = tokenizers.make_tokenizer(start.checkpoint)
        policy = start.checkpoint.serving.policy
        texts = Texts(feed.said_of(parts[0]), tokenizer, recipe.templates)
        self.size = recipe.side or start.size
        options = FeedOptions(
            settings.batch, self.size, AUGMENTS[recipe.augment], recipe.captions, settings.seed
        )
        self.feed = Feed(parts[0], texts, options, policy)
        preprocess = checkpoints.preprocess_config(start.checkpoint, self.size)
        self.mean, self.std = (
            torch.tensor(v, device=self.device) for v in (preprocess.mean, preprocess.std)
        )
        self.held_out = feed.spread(parts[1], JUDGED)
        transform = image_transform_v2(preprocess, is_train=False)
        self.held_pixels = feed.serving_pixels(self.held_out, transform, self.size, policy)
        self.held_texts = Texts(
            feed.said_of(self.held_out), tokenizer, start.checkpoint.serving.templates
        )
        layout = (
            torch.contiguous_format if recipe.spread else torch.channels_last
        )  # FSDP takes no other
        self.network = tuning.prepare(
            start.model.to(self.device, memory_format=layout), recipe.tuning
        )
        if recipe.spread:
            sharding.spread(self.network)
        self.model = tuning.plain(self.network)
        if recipe.hard:
            self.feed.neighbours = self._neighbours()

    def _neighbours(self) -> Neighbours:
        """Compare what is said first of each image, by the model as it is: the same again when a
        run goes on.
        """
        firsts = [self.feed.texts.of(item)[0] for item in self.feed.items]
        used, places = np.unique(firsts, return_inverse=True)
        self.network.eval()
        embedded = in_chunks(self.say, self.feed.texts.tokens[used, 0])
        return Neighbours(places, neighbours.nearest(embedded), self.recipe.hard)

    def groups(self) -> list[dict[str, Any]]:
        """Group what is trained."""
        return tuning.groups(self.network, self.recipe.tuning, self.settings.lr)

    def steps(self) -> int:
        """Count the batches of an epoch."""
        return len(self.feed)

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """Give an epoch's batches."""
        tuning.hold_still(self.network)
        return self.feed.epoch(epoch, first)

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed uint8 (B, S, S, 3): unit rows (B, D)."""
        light = (pixels.to(self.device, torch.float32) / 255 - self.mean) / self.std
        seen = self.model.encode_image(light.permute(0, 3, 1, 2))  # a view: channels last in memory
        return F.normalize(seen, dim=-1)

    def say(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed tokens (T, L): unit rows (T, D)."""
        return F.normalize(text_tower.encode(self.model, tokens.to(self.device)), dim=-1)

    def backward(self, batch: Batch) -> torch.Tensor:
        """Take the gradients of a batch and give its loss."""
        keys = losses.Keys(*(part.to(self.device) for part in vars(batch.keys).values()))

        def embed(rows: slice) -> tuple[torch.Tensor, ...]:
            k = self.recipe.captions
            said = slice(rows.start * k, rows.stop * k)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bfloat16):
                seen, told = self.see(batch.pixels[rows]), self.say(batch.tokens[said])
            return seen.float(), told.float()

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

    def judge(self) -> Judged:
        """Measure recall on the held-out images, each text the mean over the templates it is served
        with.
        """
        seen = in_chunks(self.see, torch.from_numpy(self.held_pixels))
        tokens = self.held_texts.tokens  # (T, K, L)
        said = in_chunks(self.say, tokens.flatten(0, 1)).reshape(*tokens.shape[:2], -1).mean(axis=1)
        said /= np.maximum(np.linalg.norm(said, axis=1, keepdims=True), 1e-12)
        similarity = seen @ said.T
        right = np.zeros(similarity.shape, bool)
        for row, item in enumerate(self.held_out):
            right[row, self.held_texts.of(item)] = True
        picture = examples(self.held_pixels, self.held_texts.texts, similarity, right)
        scale = float(self.model.logit_scale.detach().exp())
        return Judged({**recalls(similarity, right), "logit scale": scale}, picture)

    def save(self, folder: Path) -> None:
        """Write the model for serving; where it is spread, every process must ask and the first
        writes.
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
) -> tuple[list[Item], list[Item]]:
    """Read a data set and part it by image."""
    trained, judge = tables.split(tables.read(data, folder), share)
    return feed.check(trained, skip_bad=skip_bad), feed.check(judge, skip_bad=skip_bad)


def main(
    data: Captioned,
    out: Out,
    images: Images = None,
    model: ModelName = None,
    size: Size = None,
    start: StartFrom = None,
    tune: Tune = "full",
    rank: Annotated[int, typer.Option(help="Of LoRA.")] = 8,
    loss: Annotated[str, typer.Option(help="softmax (CLIP) or sigmoid (SigLIP).")] = "softmax",
    augment: Annotated[str, typer.Option(help="none, light, medium or strong.")] = "light",
    template: Template = None,
    captions_each: CaptionsEach = 1,
    hard: Hard = 0,
    held_out: HeldOut = 0.1,
    epochs: int = 10,
    batch: int = 64,
    chunk: Chunk = 0,
    accumulate: Annotated[int, typer.Option(help="Batches a step.")] = 1,
    lr: float = 5e-4,
    text_lr: TextRate = 1.0,
    head_lr: HeadRate = 1.0,
    warm_up: WarmUp = 50,
    weight_decay: float = 0.1,
    clip: Annotated[float, typer.Option(help="The gradient's norm.")] = 1.0,
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
    settings = Settings(*loop_of, seed, bfloat16)
    tuned = Tuning(tune, rank, text_lr, head_lr)
    recipe = Recipe(
        loss, augment, captions_each, tuple(template or ["{}"]), tuned, spread=fsdp, hard=hard
    )
    parts = parts_of(data, images, share=held_out, skip_bad=skip_bad)
    with processes.joined():
        begun = begin(model, start, size=size, seed=seed, sigmoid=loss == "sigmoid")
        torch.manual_seed(seed)  # LoRA draws its first weights
        task = Contrastive(begun, parts, recipe, settings)
        told = {"data": str(data), "model": start or model or "small", "size": size}
        told |= asdict(recipe) | asdict(settings)
        loop.start(Loop(task, out, settings, told), resume=resume)


if __name__ == "__main__":
    command.run(main)
