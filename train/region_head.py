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

import json
import math
import time
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
from segclip.weights.reading import reading

from .engine import command, limits
from .engine.pretrained import load_classifier
from .engine.start import trained
from .region_features import FROZEN, SOURCES, FeatureTable
from .region_text import OTHER_TEXTS, SHARES, SURE, caption_loss, region_loss
from .regions.bank import Bank
from .regions.crop_store import UNLABELLED, WRONG, Class
from .regions.feed import RegionFeed
from .regions.model import BACKGROUNDS, EMBED, MODEL, PREPROCESS, SHIPPED, WIDE
from .text_distill import embed

SILENT = 5.0  # of a class's logit, what has no effect: of an image's 1,000 logits few are larger
MIXED = SHARES | {"proposed": 1.0}  # shares of a step, the last one among the others' sum of 1
CLASSIFIER = 0.25  # length of the classes' part of an embedding at the start, over the old head's


@dataclass(frozen=True)
class RegionHeadRecipe:
    """Every setting of a run."""

    steps: int = 500
    batch: int = 512
    lr: float = 3e-4
    warm_up: int = 50
    ema: float = 0.99
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


class Head(torch.nn.Module):
    """Map a trunk's features (B, 1280) to the joint space, (B, EMBED)."""

    def __init__(self, first: torch.nn.Linear, second: torch.nn.Linear) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return rows that are not of length one yet."""
        out: torch.Tensor = self.second(F.gelu(self.first(features)))
        return out


def widen(
    mlp: Any, classifier: torch.nn.Linear, names: torch.Tensor, features: torch.Tensor, units: int
) -> Head:
    """Put a classifier's classes beside the most used units of a head of two layers.

    names: (K, D), the embedded name of each class. features: (R, 1280) of things, to see which
    units are used. units: of the new head, more than K. Raises ValueError where there is no room
    for the classes.
    """
    room = units - len(names)
    if room <= 0:
        raise ValueError(f"{units} units have no room for {len(names)} classes")
    with torch.no_grad():
        before = F.gelu(mlp.fc1(features))  # (R, U)
        used = before.abs().mean(dim=0) * mlp.fc2.weight.norm(dim=0)
        kept = used.topk(min(room, len(used))).indices.sort().values
        known = F.gelu(classifier(features) - SILENT) @ names  # (R, D)
        share = CLASSIFIER * mlp.fc2(before).norm(dim=1).mean() / known.norm(dim=1).mean()
        weights = torch.cat([mlp.fc1.weight[kept], classifier.weight])
        biases = torch.cat([mlp.fc1.bias[kept], classifier.bias - SILENT])
        first = torch.nn.Linear(weights.shape[1], units)
        second = torch.nn.Linear(units, names.shape[1], bias=False)
        for layer in (first.weight, first.bias, second.weight):
            layer.zero_()
        first.weight[: len(weights)], first.bias[: len(weights)] = weights, biases
        second.weight[:, : len(weights)] = torch.cat(
            [mlp.fc2.weight[:, kept], share * names.T], dim=1
        )
    return Head(first, second)


class RegionHeadRun:
    """Train a head on pooled features and embedded texts.

    labelled: the classes (L,) that are labelled wherever the proposer's candidates come from.
    """

    def __init__(
        self,
        head: Head,
        texts: EmbeddedTexts,
        bank: Bank,
        classes: list[Class],
        labelled: Array,
        recipe: RegionHeadRecipe,
    ) -> None:
        self.head, self.texts, self.recipe = head, texts, recipe
        self.bank, self.classes = bank, classes
        self.rng = np.random.default_rng(recipe.seed)
        self.named = np.array([row for row, kind in enumerate(classes) if kind.group != "caption"])
        self.labelled = labelled
        self.could_name = torch.from_numpy(
            bank.means[:, self.labelled].any(axis=1)
        )  # (T,), what WRONG is wrong for
        self.imagenet = [row for row, kind in enumerate(classes) if kind.group == "imagenet"]
        self.average = [value.detach().clone() for value in head.parameters()]
        self.optimizer = torch.optim.AdamW(
            head.parameters(), lr=recipe.lr, weight_decay=0.0, betas=(0.9, 0.98)
        )

    def train(self, sources: dict[str, Pooled]) -> Head:
        """Train for the recipe's steps; return the head of averaged weights."""
        recipe, started = self.recipe, time.monotonic()
        for step in range(recipe.steps):
            rate = (
                min(1, (step + 1) / recipe.warm_up)
                * (0.5 + 0.5 * math.cos(math.pi * step / recipe.steps))
                + 0.002
            )
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.lr * rate
            losses = self._losses(sources)
            self.optimizer.zero_grad()
            sum(losses.values(), torch.zeros(())).backward()
            torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
            self.optimizer.step()
            with torch.no_grad():
                for mean, value in zip(self.average, self.head.parameters(), strict=True):
                    mean.lerp_(value, 1 - recipe.ema)
            if step % 25 == 24:
                pace = (time.monotonic() - started) / (step + 1)
                worth = "  ".join(
                    f"{name} {float(loss.detach()):.3f}" for name, loss in losses.items()
                )
                left = pace * (recipe.steps - step - 1) / 60
                typer.echo(
                    f"step {step + 1}  {worth}  {pace:.2f} s/step  {left:.0f} min left", err=True
                )
        with torch.no_grad():
            for mean, value in zip(self.average, self.head.parameters(), strict=True):
                value.copy_(mean)
        return self.head

    def _losses(self, sources: dict[str, Pooled]) -> dict[str, torch.Tensor]:
        shares = {name: MIXED[name] for name in sources}
        total = sum(shares.values())
        drawn = {
            name: sources[name].take(round(self.recipe.batch * shares[name] / total))
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
        losses["teacher"] = self.recipe.taught * self._teacher_loss(images, likeliest, chances)
        return losses

    def _region_loss(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        likeliest: torch.Tensor,
        chances: torch.Tensor,
    ) -> torch.Tensor:
        """Compare named crops, those a teacher is sure of, backgrounds and wrong candidates."""
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

    def _teacher_loss(
        self, images: torch.Tensor, likeliest: torch.Tensor, chances: torch.Tensor
    ) -> torch.Tensor:
        """Let the texts of ImageNet's names be as likely as the teacher has its classes."""
        taught = likeliest[:, 0] >= 0
        if not taught.any():
            return torch.zeros(())
        logits = self.texts.scale * images[taught] @ self.texts.names[self.imagenet].T
        found = F.log_softmax(logits, dim=1).gather(1, likeliest[taught])
        wanted = chances[taught]
        entropy = (wanted * wanted.clamp(min=1e-4).log()).sum(dim=1)
        return (entropy - (wanted * found).sum(dim=1)).mean()


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


def shipped(model: Any, head: Head) -> Any:
    """Build the model that ships: the towers of ``model`` and the head, padded with zeros."""
    wide = checkpoints.make_model(SHIPPED)
    state = model.state_dict()
    weight = torch.zeros(WIDE, head.second.weight.shape[1])
    weight[:EMBED] = head.second.weight.detach()
    projection = torch.zeros(state["text_projection"].shape[0], WIDE)
    projection[:, :EMBED] = state["text_projection"]
    own = {
        "visual.head.mlp.fc1.weight": head.first.weight.detach(),
        "visual.head.mlp.fc1.bias": head.first.bias.detach(),
    }
    wide.load_state_dict(
        state | own | {"visual.head.mlp.fc2.weight": weight, "text_projection": projection}
    )
    return wide


def main(
    store: Annotated[Path, typer.Argument(help="Folder of crops, for their classes.")],
    features: Annotated[Path, typer.Argument(help="Folder of their features.")],
    start: Annotated[Path, typer.Option(help="Folder of a run of train.region_text.")],
    out: Annotated[Path, typer.Option(help="Folder for model.safetensors and config.json.")],
    steps: Annotated[int, typer.Option(help="Steps to train.")] = RegionHeadRecipe.steps,
) -> None:
    """Train the mini CLIP's head and write the model that ships."""
    limits.check({"--steps": (steps, limits.COUNT)})
    if not (store / "classes.json").exists():
        raise BadPrompt(
            f"{store} holds no crops; make them with: python -m train.region_crops {store}"
        )
    with reading(store, "crops"):
        rows = json.loads((store / "classes.json").read_text("utf-8"))["classes"]
        classes = [Class(tuple(r["texts"]), r["colour"], r["synset"], r["group"]) for r in rows]
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
        shipped(model, run.train(sources)),
        out,
        model_cfg=SHIPPED,
        preprocess_cfg=PREPROCESS,
        serving=serving,
    )
    typer.echo(f"{out}: a head of {2 * WIDE} units, {steps} steps")


if __name__ == "__main__":
    command.run(main)
