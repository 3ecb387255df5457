"""Train the mini CLIP on regions: crops cut as serving cuts them, against the texts that mean them.

    python -m train.region_text runs/crops runs/features --text runs/text \
        --out weights/mini/clip --minutes 60

The image tower starts from EfficientNet-Lite0, whose first stages stay as they are
(``train.region_features`` ran them once), the text tower from ``train.text_distill``. Each step
compares B crops with a text of each and of many others. The loss is what serving
computes: a softmax over the texts that separates objects, and for each crop and text the sigmoid
of their logit against the background texts, so that an absent thing scores low. Beside it:
ImageNet's own classifier as a teacher of crops without a name, captions of whole photos, and
MiniLM's meaning of texts without any crop.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import open_clip
import safetensors.torch
import torch
import torch.nn.functional as F
import typer

from segclip.encoders import Serving, checkpoints
from segclip.errors import BadPrompt
from segclip.ranking.templates import expand
from segclip.scoring.crops import CropPolicy, View
from segclip.weights.reading import reading

from .engine import command, limits
from .engine.checkpoint import TrainingCheckpoint
from .engine.pretrained import load_classifier
from .region_features import FROZEN, FeatureTable
from .regions.bank import Bank
from .regions.crop_store import Class
from .regions.feed import RegionBatch, RegionFeed
from .regions.model import BACKGROUNDS, MODEL, PREPROCESS, TEMPLATES
from .text_distill import distance, embed, load_vocabulary

OTHER_TEXTS = 700  # classes compared with in a step besides those shown
WRONG_WEIGHT = 40.0  # what all wrong texts of a crop weigh together, against 1 for the right ones
QUALITY_WEIGHT = (
    0.7  # chosen on held-out photographs and calibration scenes among 0.7, 1, 1.25, 1.5 and 2
)
SHARES = {
    "drawn": 0.34,
    "photo": 0.2,
    "pasted": 0.12,
    "imagenet": 0.07,
    "caltech": 0.1,
    "unlabelled": 0.09,
    "caption": 0.08,
}
SURE = 0.5  # a teacher's class that is this likely names a crop without a name
LOSSES = ("region", "teacher", "caption", "text")
TAUGHT, CAPTIONED, MEANT = 0.5, 0.25, 2.0  # weights of the losses beside the regions' own
REFRESH = 25  # steps between two embeddings of the teacher's 1,000 names


def region_loss(
    logits: torch.Tensor,
    right: torch.Tensor,
    spared: torch.Tensor,
    backgrounds: torch.Tensor,
    is_thing: torch.Tensor,
) -> torch.Tensor:
    """Score B crops against T texts and K background texts.

    logits: (B, T). right: bool (B, T), the texts that mean the crop. spared: bool (B, T), neither
    right nor wrong. backgrounds: (B, K). is_thing: bool (B,). Softmax: -log of the share of all
    right texts, among texts and the first background text (the right one of a crop that is
    nothing). Sigmoid: of each logit less the log-sum-exp of the backgrounds, as serving's softmax
    has it.
    """
    everything = torch.cat(
        [logits.masked_fill(spared, -1e4), backgrounds[:, :1]], dim=1
    )  # (B, T + 1)
    allowed = torch.cat([right, ~is_thing[:, None]], dim=1)
    named = torch.logsumexp(everything, dim=1) - torch.logsumexp(
        everything.masked_fill(~allowed, -1e4), dim=1
    )
    margin = logits - torch.logsumexp(backgrounds, dim=1, keepdim=True)  # (B, T)
    is_wrong = ~right & ~spared
    wrong = WRONG_WEIGHT * (F.softplus(margin) * is_wrong).sum(dim=1) / is_wrong.sum(dim=1)
    missed = (F.softplus(-margin) * right).sum(dim=1) / right.sum(dim=1).clamp(min=1)
    return (named + 0.5 * (missed + wrong)).mean()


def caption_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Match B photos with their captions, both ways: InfoNCE of unit rows (B, D)."""
    logits = scale * images @ texts.T
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


@dataclass(frozen=True)
class RegionTextRecipe:
    """Every setting of a run."""

    minutes: float = 60
    batch: int = 224
    lr: float = 1e-3  # of the image head; the trunk's last stages take TRUNK_RATE of it
    trunk_rate: float = 0.25
    text_lr: float = 5e-4
    weight_decay: float = 0.05
    warm_up: int = 60
    ema: float = 0.995
    seed: int = 0


class RegionTextRun:
    """Train, keep checkpoints, go on from the last one."""

    def __init__(
        self, store: Path, features: Path, folder: Path, text: Path, recipe: RegionTextRecipe
    ) -> None:
        self.recipe = recipe
        with reading(store, "crops"):
            table = json.loads((store / "classes.json").read_text("utf-8"))
            rows = table["classes"]
            self.classes = [
                Class(tuple(r["texts"]), r["colour"], r["synset"], r["group"]) for r in rows
            ]
            self.offsets = table["offsets"]
            self.bank = Bank.build(self.classes)
        self.named = np.array([row for row, k in enumerate(self.classes) if k.group != "caption"])
        torch.manual_seed(recipe.seed)
        self.rng = np.random.default_rng(recipe.seed)
        self.features = features
        self.vocabulary, self.meanings = load_vocabulary(text)
        self.model = start(text)
        self.optimizer = torch.optim.AdamW(
            _groups(self.model, recipe),
            weight_decay=recipe.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.state = TrainingCheckpoint(folder, self.model, self.optimizer, recipe.ema)
        self.tokenizer = open_clip.SimpleTokenizer(
            context_length=MODEL["text_cfg"]["context_length"]
        )
        names = [k.texts[0] for k in self.classes if k.group == "imagenet"]
        self.teacher_tokens = self.tokenizer(names)
        self.teacher_texts = torch.zeros(len(names), MODEL["embed_dim"])

    def batches(self) -> Iterator[RegionBatch]:
        """Make batches without end."""
        feeds: dict[str, RegionFeed] = {}
        count = 0
        while True:
            if count % 100 == 0:  # features may still be growing
                for name in SHARES:
                    if (self.features / f"{name}.json").exists():
                        feeds[name] = RegionFeed(FeatureTable(self.features, name), self.rng)
            count += 1
            yield self._batch(feeds)

    def _batch(self, feeds: dict[str, RegionFeed]) -> RegionBatch:
        names = [name for name in SHARES if name in feeds]
        total = sum(SHARES[name] for name in names)
        parts, captioned = [], 0
        for name in names:  # captions come last
            wanted = round(self.recipe.batch * SHARES[name] / total)
            table, rows = feeds[name].table, feeds[name].take(wanted)
            labels = table.labels[rows].astype(np.int64)
            if name == "caption":
                captioned = len(rows)
            parts.append((table.features[rows], labels, table.likeliest[rows], table.chances[rows]))
        features, labels, likeliest, chances = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        return RegionBatch(
            torch.from_numpy(features).float().contiguous(memory_format=torch.channels_last),
            torch.from_numpy(labels),
            captioned,
            torch.from_numpy(likeliest.astype(np.int64)),
            torch.from_numpy(chances).float(),
        )

    def train(self) -> None:
        """Train until the recipe's minutes are spent."""
        self.model.eval()  # batch norms keep ImageNet's statistics
        last, losses_so_far = time.monotonic(), np.zeros(len(LOSSES))
        for batch in self.batches():
            share = self.state.spent / (self.recipe.minutes * 60)
            if share >= 1:
                break
            losses_so_far = 0.98 * losses_so_far + 0.02 * np.array(self._update(batch, share))
            last = self.state.elapse(last)
            if self.state.step % 25 == 0:
                rate = self.state.step * self.recipe.batch / self.state.spent
                scale = float(self.model.logit_scale.detach().exp())
                left = self.recipe.minutes - self.state.spent / 60
                means = losses_so_far / (1 - 0.98**self.state.step)
                losses = "  ".join(f"{n} {v:.3f}" for n, v in zip(LOSSES, means, strict=True))
                typer.echo(
                    f"step {self.state.step}  {losses}  scale {scale:.1f}  {rate:.0f} crops/s  "
                    f"{left:.0f} min left",
                    err=True,
                )
            if self.state.step % 100 == 0:
                self.state.keep()

    def _update(self, batch: RegionBatch, share: float) -> list[float]:
        rate = (
            min(1, (self.state.step + 1) / self.recipe.warm_up)
            * (0.5 + 0.5 * math.cos(math.pi * share))
            + 0.002
        )
        for group, base in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = base * rate
        images = F.normalize(last_layers(self.model.visual, batch.features), dim=-1)
        losses = [
            self._region_loss(batch, images),
            TAUGHT * self._teacher_loss(batch, images),
            CAPTIONED * self._caption_loss(batch, images),
            MEANT * self._meaning_loss(),
        ]
        self.optimizer.zero_grad()
        sum(losses).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(100))
        self.state.count()
        return [float(loss.detach()) for loss in losses]

    def _region_loss(self, batch: RegionBatch, images: torch.Tensor) -> torch.Tensor:
        """Compare named crops, and those a teacher is sure of, with texts; leave out captions."""
        kept = len(batch.labels) - batch.captioned
        labels = batch.labels[:kept].clone()
        sure = (labels == -2) & (batch.chances[:kept, 0] > SURE) & (batch.likeliest[:kept, 0] >= 0)
        labels[sure] = batch.likeliest[:kept, 0][sure] + self.offsets["imagenet"]
        used = labels > -2
        labels = labels[used]
        others = self.rng.choice(self.named, min(OTHER_TEXTS, len(self.named)), replace=False)
        rows = self.bank.sample(self.rng, np.union1d(labels[labels >= 0].numpy(), others))
        texts = [expand(self.bank.texts[row], [str(self.rng.choice(TEMPLATES))])[0] for row in rows]
        embedded = self._embed_texts([*texts, *BACKGROUNDS])
        logits = self.model.logit_scale.exp() * images[:kept][used] @ embedded.T  # (B, T + K)
        is_thing = labels >= 0
        place = labels.clamp(min=0)
        right = torch.from_numpy(self.bank.means[rows])[:, place].T & is_thing[:, None]  # (B, T)
        spared = torch.from_numpy(self.bank.spared[rows])[:, place].T & is_thing[:, None]
        count = len(BACKGROUNDS)
        return region_loss(logits[:, :-count], right, spared, logits[:, -count:], is_thing)

    def _teacher_loss(self, batch: RegionBatch, images: torch.Tensor) -> torch.Tensor:
        """Let the texts of ImageNet's names be as likely as the teacher has its classes."""
        if self.state.step % REFRESH == 0:
            with torch.no_grad():
                self.teacher_texts = embed(self.model, self.teacher_tokens)
        taught = batch.likeliest[:, 0] >= 0
        logits = self.model.logit_scale.exp() * images[taught] @ self.teacher_texts.T
        chances = F.log_softmax(logits, dim=1).gather(1, batch.likeliest[taught])
        wanted = batch.chances[taught]
        entropy = (wanted * wanted.clamp(min=1e-4).log()).sum(dim=1)
        return (entropy - (wanted * chances).sum(dim=1)).mean()

    def _caption_loss(self, batch: RegionBatch, images: torch.Tensor) -> torch.Tensor:
        labels = batch.labels[len(batch.labels) - batch.captioned :]
        if not len(labels):
            return torch.zeros(())
        first = {int(label): row for row, label in enumerate(labels)}  # one photo of each caption
        rows = torch.tensor(sorted(first.values()))
        texts = self._embed_texts([self.classes[int(labels[row])].texts[0] for row in rows])
        shown = images[len(images) - batch.captioned :][rows]
        return caption_loss(shown, texts, self.model.logit_scale.exp())

    def _meaning_loss(self) -> torch.Tensor:
        """Keep texts where MiniLM has them."""
        rows = self.rng.integers(len(self.vocabulary), size=160)
        embedded = self._embed_texts([self.vocabulary[row] for row in rows])
        return distance(embedded, torch.from_numpy(self.meanings[rows]))

    def _embed_texts(self, texts: list[str]) -> torch.Tensor:
        return embed(self.model, self.tokenizer(texts))

    def resume(self) -> None:
        """Resume from the last checkpoint, if there is one, with other crops than before."""
        if self.state.resume():
            self.rng = np.random.default_rng([self.recipe.seed, self.state.step])

    def start_from(self, folder: Path) -> None:
        """Take the weights an earlier run exported; the optimiser starts anew."""
        with reading(folder / "model.safetensors"):
            self.model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
        self.state.restart()

    def export(self, out: Path) -> None:
        """Write the averaged weights for serving."""
        model = checkpoints.make_model(MODEL)
        model.load_state_dict(self.state.average)
        policy = CropPolicy((View(1.1, "blur", 1.0, stretch=True),))
        templates = ("{}", "a {}", "a photo of a {}")
        serving = Serving(policy, templates, BACKGROUNDS, quality_weight=QUALITY_WEIGHT)
        checkpoints.save(model, out, model_cfg=MODEL, preprocess_cfg=PREPROCESS, serving=serving)


def start(text: Path) -> Any:
    """Build the model: EfficientNet-Lite0's trunk, a new head, the distilled text tower."""
    model = checkpoints.make_model(MODEL)
    trunk = {
        n: v for n, v in load_classifier().state_dict().items() if not n.startswith("classifier")
    }
    model.visual.trunk.load_state_dict(trunk)
    model.load_state_dict(safetensors.torch.load_file(text / "text.safetensors"), strict=False)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(14))
    for parameter in [
        *model.visual.trunk.conv_stem.parameters(),
        *model.visual.trunk.bn1.parameters(),
    ]:
        parameter.requires_grad_(False)
    for stage in model.visual.trunk.blocks[:FROZEN]:
        stage.requires_grad_(False)
    model.visual.to(memory_format=torch.channels_last)
    return model


def last_layers(visual: Any, features: torch.Tensor) -> torch.Tensor:
    """Run the stages after the frozen ones: (B, CHANNELS, S / 16, S / 16) to (B, D)."""
    trunk = visual.trunk
    for stage in trunk.blocks[FROZEN:]:
        features = stage(features)
    return visual.head(trunk.forward_head(trunk.bn2(trunk.conv_head(features))))


def _groups(model: Any, recipe: RegionTextRecipe) -> list[dict[str, Any]]:
    trunk = [p for p in model.visual.trunk.parameters() if p.requires_grad]
    text = [p for name, p in model.named_parameters() if not name.startswith("visual.")]
    return [
        {"params": list(model.visual.head.parameters()), "lr": recipe.lr},
        {"params": trunk, "lr": recipe.lr * recipe.trunk_rate},
        {"params": text, "lr": recipe.text_lr},
    ]


def main(
    store: Annotated[Path, typer.Argument(help="Folder of crops, for their classes.")],
    features: Annotated[Path, typer.Argument(help="Folder of their features.")],
    text: Annotated[Path, typer.Option(help="Folder of the distilled text tower.")],
    out: Annotated[Path, typer.Option(help="Folder for model.safetensors and config.json.")],
    runs: Annotated[Path, typer.Option(help="Folder for checkpoints.")] = Path("runs/region_text"),
    minutes: float = 60,
    start: Annotated[
        Path | None, typer.Option(help="Start from the weights of this folder.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in RUNS.")] = False,
) -> None:
    """Train the mini CLIP and write it."""
    limits.check({"--minutes": (minutes, limits.MINUTES)})
    if not (store / "classes.json").exists():
        raise BadPrompt(
            f"{store} holds no crops; make them with: python -m train.region_crops {store}"
        )
    run = RegionTextRun(store, features, runs, text, RegionTextRecipe(minutes=minutes))
    if start:
        run.start_from(start)
    if resume:
        run.resume()
    run.train()
    run.state.keep()
    run.export(out)
    typer.echo(f"{out}: {run.state.step} steps in {run.state.spent / 60:.0f} minutes")


if __name__ == "__main__":
    command.run(main)
