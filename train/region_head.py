"""Finish the mini CLIP with a head that knows ImageNet's classes and the proposer's mistakes.

    python -m train.region_head runs/crops runs/features --start runs/mini-clip \
        --out weights/mini/clip

``train.region_text`` leaves a head of two layers that was made from nothing. Here its most used
units stay, and a unit for each of ImageNet's 1,000 classes is put beside them: the classifier's own
logit, beyond which the embedding of the class's name is added (as in ConSE, Norouzi et al. 2013,
https://arxiv.org/abs/1312.5650). Then the head alone is trained, in minutes, with both towers as
they are, on crops as before and on candidates of the proposer, most of which are parts of things or
pieces of background. Such a candidate is wrong for what its photo's labels could name, and for
nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
import typer

from segclip.encoders import checkpoints
from segclip.errors import BadPrompt
from segclip.ranking.templates import expand
from segclip.types import Array

from .engine import command, limits
from .engine.options import ServedOut, StoredCrops, StoredFeatures
from .engine.pretrained import load_classifier
from .engine.start import trained
from .engine.state import TrainingState
from .engine.timed import TimedRecipe, TimedRun
from .region_features import FROZEN, SOURCES, FeatureTable
from .region_text import OTHER_TEXTS, SHARES, SURE
from .regions.bank import Bank
from .regions.crop_store import UNLABELLED, WRONG, Class, read_classes
from .regions.feed import RegionFeed
from .regions.head import Head, shipped, widen
from .regions.losses import caption_loss, region_loss, teacher_loss
from .regions.model import BACKGROUNDS, EMBED, MODEL, PREPROCESS, SHIPPED, WIDE
from .text_distill import embed

MIXED = SHARES | {"proposed": 1.0}  # shares of a step, the last one among the others' sum of 1


@dataclass(frozen=True)
class RegionHeadRecipe(TimedRecipe):
    """Every setting of a run."""

    steps: int = 500
    batch: int = 512
    lr: float = 3e-4
    warm_up: int = 50
    ema: float = 0.99
    floor: float = 0.002
    report: int = 25
    taught: float = 2.0  # weight of the teacher's loss beside the regions'
    captioned: float = 0.25
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Pooled:
    """Hold a source's crops behind the trunk. features: float16 (R, 1280)."""

    feed: RegionFeed
    features: torch.Tensor

    def take(self, count: int) -> tuple[torch.Tensor, ...]:
        """Draw rows: features, labels, and the teacher's likeliest classes with their chances."""
        rows, table = self.feed.take(count), self.feed.table
        return (
            self.features[rows].float(),
            torch.from_numpy(table.labels[rows].astype(np.int64)),
            torch.from_numpy(table.likeliest[rows].astype(np.int64)),
            torch.from_numpy(table.chances[rows].astype(np.float32)),
        )


@dataclass(frozen=True, eq=False)
class EmbeddedTexts:
    """Hold unit embeddings, and the scale of logits.

    bank: of all its texts. backgrounds, names: of BACKGROUNDS, of every class's name.
    """

    bank: torch.Tensor
    backgrounds: torch.Tensor
    names: torch.Tensor
    scale: float

    @classmethod
    def embed(
        cls, model: Any, bank: Bank, classes: Sequence[Class], sentences: Sequence[str]
    ) -> EmbeddedTexts:
        """Embed texts as serving does, as the mean over its sentences."""
        tokenizer = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])

        def rows(texts: Sequence[str]) -> torch.Tensor:
            total = torch.zeros(len(texts), EMBED)
            for start in range(0, len(texts), 512):
                part = texts[start : start + 512]
                for sentence in sentences:
                    filled = [text for one in part for text in expand(one, [sentence])]
                    total[start : start + len(part)] += embed(model, tokenizer(filled))
            return F.normalize(total, dim=-1)

        with torch.no_grad():
            names = rows([kind.texts[0] for kind in classes])
            return cls(rows(bank.texts), rows(BACKGROUNDS), names, float(model.logit_scale.exp()))


class RegionHeadRun(TimedRun):
    """Train a head on pooled features and embedded texts.

    labelled: the classes (L,) that are labelled wherever the proposer's candidates come from.
    """

    recipe: RegionHeadRecipe

    def __init__(
        self,
        head: Head,
        texts: EmbeddedTexts,
        bank: Bank,
        classes: list[Class],
        labelled: Array,
        recipe: RegionHeadRecipe,
    ) -> None:
        self.head, self.texts = head, texts
        self.bank, self.classes = bank, classes
        self.rng = np.random.default_rng(recipe.seed)
        self.named = np.array([row for row, kind in enumerate(classes) if kind.group != "caption"])
        self.labelled = labelled
        self.could_name = torch.from_numpy(
            bank.means[:, self.labelled].any(axis=1)
        )  # (T,), what WRONG is wrong for
        self.imagenet = [row for row, kind in enumerate(classes) if kind.group == "imagenet"]
        self.sources: dict[str, Pooled] = {}
        self.losses: dict[str, torch.Tensor] = {}  # of the last step
        optimizer = torch.optim.AdamW(
            head.parameters(), lr=recipe.lr, weight_decay=0.0, betas=(0.9, 0.98)
        )
        super().__init__(TrainingState(head, optimizer, recipe.ema, ramp=False), recipe)

    def report(self) -> str:
        """Return the losses of the step, the pace and the minutes left."""
        losses = "  ".join(f"{name} {float(value):.3f}" for name, value in self.losses.items())
        return f"{losses}  {self.pace:.2f} s/step  {self.left:.0f} min left"

    def loss(self) -> torch.Tensor:
        """Return the sum of the losses of a batch."""
        losses = self._losses()
        self.losses = {name: value.detach() for name, value in losses.items()}
        return sum(losses.values(), torch.zeros(()))

    def learn(self, sources: dict[str, Pooled]) -> Head:
        """Train on crops for the recipe's steps; return the head of averaged weights."""
        self.sources = sources
        self.train()
        self.head.load_state_dict(self.state.average)
        return self.head

    def _losses(self) -> dict[str, torch.Tensor]:
        shares = {name: MIXED[name] for name in self.sources}
        total = sum(shares.values())
        drawn = {
            name: self.sources[name].take(round(self.recipe.batch * shares[name] / total))
            for name in shares
        }
        captions = drawn.pop("caption", None)
        losses = {}
        if captions:
            first = {
                int(label): row for row, label in enumerate(captions[1])
            }  # one photo of each caption
            photos = F.normalize(self.head(captions[0][list(first.values())]), dim=-1)
            losses["caption"] = self.recipe.captioned * caption_loss(
                photos, self.texts.names[list(first)], torch.tensor(self.texts.scale)
            )
        features, labels, likeliest, chances = (
            torch.cat(column) for column in zip(*drawn.values(), strict=True)
        )
        images = F.normalize(self.head(features), dim=-1)
        losses["region"] = self._region_loss(images, labels, likeliest, chances)
        losses["teacher"] = self.recipe.taught * teacher_loss(
            images, self.texts.names[self.imagenet], self.texts.scale, likeliest, chances
        )
        return losses

    def _region_loss(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        likeliest: torch.Tensor,
        chances: torch.Tensor,
    ) -> torch.Tensor:
        """Compare crops with a name, a sure teacher, those of the background, and wrong ones."""
        sure = (labels == UNLABELLED) & (chances[:, 0] > SURE) & (likeliest[:, 0] >= 0)
        labels = torch.where(sure, likeliest[:, 0] + min(self.imagenet, default=0), labels)
        used = labels != UNLABELLED
        images, labels = images[used], labels[used]
        others = self.rng.choice(self.named, min(OTHER_TEXTS, len(self.named)), replace=False)
        compared = np.unique(np.concatenate([labels[labels >= 0].numpy(), others, self.labelled]))
        rows = self.bank.sample(self.rng, compared)
        is_thing, place = labels >= 0, labels.clamp(min=0)
        right = torch.from_numpy(self.bank.means[rows])[:, place].T & is_thing[:, None]  # (B, T)
        spared = torch.from_numpy(self.bank.spared[rows])[:, place].T & is_thing[:, None]
        spared = torch.where((labels == WRONG)[:, None], ~self.could_name[rows], spared)
        logits = self.texts.scale * images @ self.texts.bank[rows].T
        return region_loss(
            logits, right, spared, self.texts.scale * images @ self.texts.backgrounds.T, is_thing
        )


@torch.no_grad()
def pool(visual: Any, table: FeatureTable, batch: int = 128) -> torch.Tensor:
    """Run stored features through the rest of the trunk: float16 (R, 1280)."""
    trunk, rows = visual.trunk, []
    for start in range(0, len(table.labels), batch):
        features = torch.from_numpy(np.array(table.features[start : start + batch])).float()
        features = features.contiguous(memory_format=torch.channels_last)
        for stage in trunk.blocks[FROZEN:]:
            features = stage(features)
        rows.append(trunk.forward_head(trunk.bn2(trunk.conv_head(features))).half())
    return torch.cat(rows).clone()


def main(
    store: StoredCrops,
    features: StoredFeatures,
    start: Annotated[Path, typer.Option(help="Folder of a run of train.region_text.")],
    out: ServedOut,
    steps: Annotated[int, typer.Option(help="Steps to train.")] = RegionHeadRecipe.steps,
) -> None:
    """Train the mini CLIP's head and write the model that ships."""
    limits.check({"--steps": (steps, limits.COUNT)})
    classes, _ = read_classes(store)
    begun = trained(f"file:{start}")
    model, serving = begun.model.eval(), begun.checkpoint.serving
    bank = Bank.build(classes)
    texts = EmbeddedTexts.embed(model, bank, classes, serving.templates)
    rng = np.random.default_rng(RegionHeadRecipe.seed)
    sources = {}
    for name in SOURCES:
        if (features / f"{name}.json").exists():
            table = FeatureTable(features, name)
            typer.echo(f"{name}: {len(table.labels)} crops", err=True)
            sources[name] = Pooled(RegionFeed(table, rng), pool(model.visual, table))
    if not sources:
        raise BadPrompt(
            f"{features} holds no features; make them with: python -m train.region_features {store}"
        )
    torch.manual_seed(RegionHeadRecipe.seed)
    things = next(iter(sources.values())).features[:2000].float()
    names = texts.names[[row for row, kind in enumerate(classes) if kind.group == "imagenet"]]
    head = widen(model.visual.head.mlp, load_classifier().classifier, names, things, 2 * WIDE)
    found = sources["proposed"].feed.labels if "proposed" in sources else np.zeros(0, int)
    labelled = np.unique(found[found >= 0]).astype(int)
    run = RegionHeadRun(head, texts, bank, classes, labelled, RegionHeadRecipe(steps=steps))
    checkpoints.save(
        shipped(model, run.learn(sources)),
        out,
        model_cfg=SHIPPED,
        preprocess_cfg=PREPROCESS,
        serving=serving,
    )
    typer.echo(f"{out}: a head of {2 * WIDE} units, {steps} steps")


if __name__ == "__main__":
    command.run(main)
