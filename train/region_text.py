"""Train the mini CLIP on regions: crops cut as serving cuts them, against the texts that mean them.

    python -m train.region_text runs/crops --out weights/mini/clip --minutes 175

A step shows B crops and says a text of each and of many others. The loss is what serving computes: a softmax over the
texts that tells objects apart (several may be right: a red apple is an apple), and for each crop and text the sigmoid
of their logit against the background texts (the two-way softmax of serving), so that an absent thing scores low.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import open_clip
import safetensors.torch
import torch
import torch.nn.functional as F
import typer

from segclip.crops import CropPolicy, View, fill_outside
from segclip.encoders import Serving, checkpoints, text_tower
from segclip.errors import BadPrompt
from segclip.templates import expand
from segclip.types import Array
from segclip.weight_files import reading

from . import command, limits
from .bank import Bank
from .checkpoint import Checkpoint
from .region_crops import CONTEXT, STORED, Class, CropStore

SIZE = 64  # px the image tower sees
EARLY_SIZE, EARLY_SHARE = 48, 0.45  # it sees less in the first part of a run: half the cost
OTHER_TEXTS = 400  # classes spoken of in a step besides those shown
WRONG_WEIGHT = 40.0  # what all wrong texts of a crop weigh together, against 1 for the right ones
MODEL: dict[str, Any] = {
    "embed_dim": 256,
    "vision_cfg": {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear", "image_size": SIZE},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 96, "heads": 4, "layers": 2},
}
PREPROCESS = {"mean": [0.45] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
BACKGROUNDS = ("background", "something else")
TEMPLATES = ("{}", "a {}", "the {}", "a photo of a {}", "a picture of a {}", "one {}")
QUALITY_WEIGHT = 0.7  # chosen on calibration scenes among 0, 0.3, 0.5, 0.7 and 1
OBJECT_SHARE, CALTECH_SHARE, PHOTO_SHARE = 0.78, 0.10, 0.05  # of a batch; the rest is background


def augment(rng: np.random.Generator, rgba: Array, size: int) -> Array:
    """Cut a stored crop again, uint8 (size, size, 3): other context, turn, light, a mask as rough as a proposer's."""
    scale = size / STORED * CONTEXT / rng.uniform(1.0, 1.6)
    turn = cv2.getRotationMatrix2D((STORED / 2, STORED / 2), rng.normal(0, 9), scale)
    turn[:, 2] += (size - STORED) / 2 + rng.normal(0, 0.03 * size, 2)
    moved = cv2.warpAffine(rgba, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    pixels, inside = moved[..., :3], _imprecise(rng, moved[..., 3])
    light = rng.normal(1, 0.12) * rng.normal(1, 0.05, 3)
    pixels = np.clip(pixels * light + rng.normal(0, 10), 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.4, 1.2))
    fill = str(rng.choice(("blur", "keep", "mean"), p=(0.8, 0.1, 0.1)))
    return fill_outside(pixels, inside, fill)


def _imprecise(rng: np.random.Generator, mask: Array) -> Array:
    inside = mask.astype(np.float32) / 255
    if rng.random() < 0.7:
        inside = cv2.GaussianBlur(inside, (0, 0), rng.uniform(0.5, 3.0))
        inside = (inside > rng.uniform(0.3, 0.7)).astype(np.float32)
    return inside


def region_loss(
    logits: torch.Tensor, right: torch.Tensor, backgrounds: torch.Tensor, is_thing: torch.Tensor
) -> torch.Tensor:
    """Score B crops against T texts and K background texts.

    logits: (B, T). right: bool (B, T), the texts that mean the crop. backgrounds: (B, K). is_thing: bool (B,).
    Softmax: -log of the share of all right texts, among texts and the first background text (the right one of a crop
    that is nothing). Sigmoid: of each logit less the log-sum-exp of the backgrounds, as serving's softmax has it.
    """
    everything = torch.cat([logits, backgrounds[:, :1]], dim=1)  # (B, T + 1)
    allowed = torch.cat([right, ~is_thing[:, None]], dim=1)
    told = torch.logsumexp(everything, dim=1) - torch.logsumexp(everything.masked_fill(~allowed, -1e4), dim=1)
    margin = logits - torch.logsumexp(backgrounds, dim=1, keepdim=True)  # (B, T)
    wrong = WRONG_WEIGHT * (F.softplus(margin) * ~right).sum(dim=1) / (~right).sum(dim=1)
    missed = (F.softplus(-margin) * right).sum(dim=1) / right.sum(dim=1).clamp(min=1)
    return (told + 0.5 * (missed + wrong)).mean()


@dataclass(frozen=True)
class Recipe:
    """Every setting of a run."""

    minutes: float = 175
    batch: int = 192
    lr: float = 2e-3
    text_lr: float = 1e-3
    weight_decay: float = 0.05
    warm_up: int = 100
    ema: float = 0.998
    seed: int = 0
    bfloat16: bool = False


class Run:
    """Train, keep checkpoints, go on from the last one."""

    def __init__(self, store: Path, folder: Path, recipe: Recipe) -> None:
        self.recipe = recipe
        with reading(store, "crops"):
            table = json.loads((store / "classes.json").read_text())
            self.classes = [Class(tuple(row["texts"]), row["colour"]) for row in table["classes"]]
            self.offsets = table["offsets"]
            self.bank = Bank.build(self.classes)
            self.stores = {name: CropStore(store, name) for name in self.offsets}
        torch.manual_seed(recipe.seed)
        self.rng = np.random.default_rng(recipe.seed)
        self.early_minutes = EARLY_SHARE * recipe.minutes
        self.model = checkpoints.make_model(MODEL)
        with torch.no_grad():
            self.model.token_embedding.weight.mul_(0.5)  # words never trained on should say little
            self.model.logit_scale.fill_(math.log(14))
        self.model.visual.to(memory_format=torch.channels_last)
        text = [p for name, p in self.model.named_parameters() if not name.startswith("visual.")]
        groups = [
            {"params": list(self.model.visual.parameters()), "lr": recipe.lr},
            {"params": text, "lr": recipe.text_lr},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, betas=(0.9, 0.98), fused=True)
        self.state = Checkpoint(folder, self.model, self.optimizer, recipe.ema)
        self.tokenizer = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Make batches without end: crops (B, 3, S, S) normalised and their classes (B,), -1 for background."""
        feeds = self._feeds()
        while True:
            if self.state.step and self.state.step % 200 == 0:
                for store in self.stores.values():
                    store.reload()
                feeds = self._feeds()
            size = EARLY_SIZE if self.state.spent < self.early_minutes * 60 else SIZE
            crops, labels = [], []
            for store, offset, rows, count in feeds:
                for _ in range(count):
                    rgba, label = store[next(rows)]
                    crops.append(augment(self.rng, rgba, size))
                    labels.append(label + offset if label >= 0 else -1)
            pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
            yield (pixels - PREPROCESS["mean"][0]) / PREPROCESS["std"][0], torch.tensor(labels)

    def _feeds(self) -> list[tuple[CropStore, int, Iterator[int], int]]:
        """List where a batch's crops come from: store, offset of its classes, rows without end, how many."""
        wanted = (("drawn", OBJECT_SHARE, True), ("caltech", CALTECH_SHARE, True), ("photo", PHOTO_SHARE, True))
        shares = [row for row in wanted if row[0] in self.stores]
        shares.append(("drawn", 1 - sum(share for _, share, _ in shares), False))
        feeds = []
        for name, share, things in shares:
            store = self.stores[name]
            rows = store.order(self.rng, things=things)
            feeds.append((store, self.offsets[name], rows, round(share * self.recipe.batch)))
        return feeds

    def train(self) -> None:
        """Train until the recipe's minutes are spent."""
        self.model.train()
        last = time.monotonic()
        for pixels, labels in self.batches():
            share = self.state.spent / (self.recipe.minutes * 60)
            if share >= 1:
                break
            loss = self._update(pixels, labels, share)
            now = time.monotonic()
            self.state.spent, last = self.state.spent + now - last, now
            if self.state.step % 50 == 0:
                rate = self.state.step * self.recipe.batch / self.state.spent
                scale = float(self.model.logit_scale.detach().exp())
                left = self.recipe.minutes - self.state.spent / 60
                told = f"loss {loss:.3f}  scale {scale:.1f}  {rate:.0f} crops/s  {left:.0f} min left"
                typer.echo(f"step {self.state.step}  {told}", err=True)
            if self.state.step % 250 == 0:
                self.state.keep()

    def _update(self, pixels: torch.Tensor, labels: torch.Tensor, share: float) -> float:
        rate = min(1, (self.state.step + 1) / self.recipe.warm_up) * (0.5 + 0.5 * math.cos(math.pi * share)) + 0.002
        for group, base in zip(self.optimizer.param_groups, (self.recipe.lr, self.recipe.text_lr), strict=True):
            group["lr"] = base * rate
        rows = self.bank.sample(self.rng, self._spoken_of(labels))
        said = [expand(self.bank.texts[row], [str(self.rng.choice(TEMPLATES))])[0] for row in rows]
        texts = F.normalize(text_tower.encode(self.model, self.tokenizer([*said, *BACKGROUNDS])), dim=-1)  # (T + K, D)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16):
            images = self.model.visual(pixels.contiguous(memory_format=torch.channels_last))
        logits = self.model.logit_scale.exp() * F.normalize(images.float(), dim=-1) @ texts.T  # (B, T + K)
        is_thing = labels >= 0
        right = torch.from_numpy(self.bank.means[rows])[:, labels.clamp(min=0)].T & is_thing[:, None]  # (B, T)
        count = len(BACKGROUNDS)
        loss = region_loss(logits[:, :-count], right, logits[:, -count:], is_thing)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(100))
        self.state.count()
        return float(loss.detach())

    def _spoken_of(self, labels: torch.Tensor) -> Array:
        others = self.rng.choice(len(self.classes), min(OTHER_TEXTS, len(self.classes)), replace=False)
        return np.union1d(labels[labels >= 0].numpy(), others)

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one, with other crops than those it has seen."""
        if self.state.resume():
            self.rng = np.random.default_rng([self.recipe.seed, self.state.step])

    def start_from(self, folder: Path) -> None:
        """Take the weights an earlier run exported; the optimiser starts anew, crops are large from the first."""
        self.early_minutes = 0.0
        with reading(folder / "model.safetensors"):
            self.model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
        self.state.restart()

    def export(self, out: Path) -> None:
        """Write the averaged weights for serving."""
        model = checkpoints.make_model(MODEL)
        model.load_state_dict(self.state.average)
        policy = CropPolicy((View(1.5, "blur", 0.5), View(1.1, "blur", 0.5)), flip=True)
        templates = ("{}", "a {}", "a photo of a {}")
        serving = Serving(policy, templates, BACKGROUNDS, quality_weight=QUALITY_WEIGHT)
        checkpoints.save(model, out, model_cfg=MODEL, preprocess_cfg=PREPROCESS, serving=serving)


def main(
    store: Path,
    out: Annotated[Path, typer.Option(help="Folder for model.safetensors and config.json.")],
    runs: Annotated[Path, typer.Option(help="Folder for checkpoints.")] = Path("runs/region_text"),
    minutes: float = 175,
    start: Annotated[Path | None, typer.Option(help="Start from the weights of this folder.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in RUNS.")] = False,
    bfloat16: Annotated[
        bool, typer.Option(help="Twice as fast where the processor computes in it, else slower.")
    ] = False,
) -> None:
    """Train the mini CLIP and write it."""
    limits.check({"--minutes": (minutes, limits.MINUTES)})
    if not (store / "classes.json").exists():
        raise BadPrompt(f"{store} holds no crops; make them with: python -m train.region_text crops {store}")
    cv2.setNumThreads(1)
    run = Run(store, runs, Recipe(minutes=minutes, bfloat16=bfloat16))
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
