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

import math
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
from segclip.ranking.templates import expand
from segclip.scoring.crops import CropPolicy, View
from segclip.weights.reading import reading

from .engine import command
from .engine.checkpoint import TrainingCheckpoint
from .engine.options import Minutes, ResumeRuns, Runs, ServedOut, StoredCrops, StoredFeatures
from .engine.pretrained import load_classifier
from .engine.timed import RunningMeans, ServedRun, TimedRecipe
from .region_features import FROZEN, FeatureTable
from .regions.bank import Bank
from .regions.crop_store import read_classes
from .regions.feed import RegionBatch, RegionFeed
from .regions.losses import caption_loss, region_loss, teacher_loss
from .regions.model import BACKGROUNDS, MODEL, PREPROCESS, TEMPLATES
from .text_distill import distance, embed, load_vocabulary

OTHER_TEXTS = 700  # classes compared with in a step besides those shown
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
TAUGHT, CAPTIONED, MEANT = 0.5, 0.25, 2.0  # weights of the losses beside the regions' own
REFRESH = 25  # steps between two embeddings of the teacher's 1,000 names


@dataclass(frozen=True)
class RegionTextRecipe(TimedRecipe):
    """Every setting of a run."""

    minutes: float = 60
    batch: int = 224
    lr: float = 1e-3  # of the image head; the trunk's last stages take TRUNK_RATE of it
    trunk_rate: float = 0.25
    text_lr: float = 5e-4
    weight_decay: float = 0.05
    warm_up: int = 60
    ema: float = 0.995
    floor: float = 0.002
    report: int = 25
    seed: int = 0


class RegionTextRun(ServedRun):
    """Train the two towers on crops, texts and what their teachers know of both."""

    recipe: RegionTextRecipe

    def __init__(
        self, store: Path, features: Path, folder: Path, text: Path, recipe: RegionTextRecipe
    ) -> None:
        self.classes, self.offsets = read_classes(store)
        self.bank = Bank.build(self.classes)
        self.named = np.array([row for row, k in enumerate(self.classes) if k.group != "caption"])
        torch.manual_seed(recipe.seed)
        self.rng = np.random.default_rng(recipe.seed)
        self.features = features
        self.vocabulary, self.meanings = load_vocabulary(text)
        self.model = start(text)
        optimizer = torch.optim.AdamW(
            _groups(self.model, recipe),
            weight_decay=recipe.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        super().__init__(TrainingCheckpoint(folder, self.model, optimizer, recipe.ema), recipe)
        self.model.eval()  # batch norms keep ImageNet's statistics
        self.losses = RunningMeans()
        self.feed = self.batches()
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

    def report(self) -> str:
        """Return the losses, the scale of the logits, the rate and the minutes left."""
        scale = float(self.model.logit_scale.detach().exp())
        return (
            f"{self.losses.line(in_order=False)}  scale {scale:.1f}  "
            f"{self.recipe.batch / self.pace:.0f} crops/s  {self.left:.0f} min left"
        )

    def loss(self) -> torch.Tensor:
        """Return the sum of the losses of the next batch."""
        batch = next(self.feed)
        images = F.normalize(last_layers(self.model.visual, batch.features), dim=-1)
        losses = {
            "region": self._region_loss(batch, images),
            "teacher": TAUGHT * self._teacher_loss(batch, images),
            "caption": CAPTIONED * self._caption_loss(batch, images),
            "text": MEANT * self._meaning_loss(),
        }
        for name, value in losses.items():
            self.losses.add(name, float(value.detach()))
        return sum(losses.values(), torch.zeros(()))

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
        scale = self.model.logit_scale.exp()
        return teacher_loss(images, self.teacher_texts, scale, batch.likeliest, batch.chances)

    def _caption_loss(self, batch: RegionBatch, images: torch.Tensor) -> torch.Tensor:
        labels = batch.labels[len(batch.labels) - batch.captioned :]
        if not len(labels):
            return torch.zeros(())
        first = {int(label): row for row, label in enumerate(labels)}  # one photo of each caption
        rows = torch.tensor(sorted(first.values()))
        texts = self._embed_texts([self.classes[int(labels[row])].texts[0] for row in rows])
        captioned = images[len(images) - batch.captioned :][rows]
        return caption_loss(captioned, texts, self.model.logit_scale.exp())

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
    store: StoredCrops,
    features: StoredFeatures,
    text: Annotated[Path, typer.Option(help="Folder of the distilled text tower.")],
    out: ServedOut,
    runs: Runs = Path("runs/region_text"),
    minutes: Minutes = RegionTextRecipe.minutes,
    start: Annotated[
        Path | None, typer.Option(help="Start from the weights of this folder.")
    ] = None,
    resume: ResumeRuns = False,
) -> None:
    """Train the mini CLIP and write it."""
    run = RegionTextRun(store, features, runs, text, RegionTextRecipe(minutes=minutes))
    if start:
        run.start_from(start)
    run.carry_out(out, resume=resume)


if __name__ == "__main__":
    command.run(main)
