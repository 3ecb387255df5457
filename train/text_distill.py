"""Train the mini text tower by distilling MiniLM's embeddings of a large vocabulary.

    python -m train.text_distill runs/crops --out runs/text --data ../shared

The targets are MiniLM's unit vectors minus their mean, so that two unrelated texts are about
orthogonal; a template around a text does not change its target. Words without any crop thus get
embeddings near those of related words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import open_clip
import safetensors.torch
import torch
import torch.nn.functional as F
import typer

from segclip.encoders import checkpoints, text_tower
from segclip.types import Array
from segclip.weights.reading import reading

from .captions.vocabulary import nouns, phrases, pieces
from .engine import command, limits
from .engine.options import Minutes, StoredCrops
from .engine.pretrained import SentenceTeacher
from .engine.state import TrainingState
from .engine.timed import TimedRecipe, TimedRun
from .regions.bank import Bank
from .regions.crop_store import Class, read_classes
from .regions.model import EMBED, MODEL, TEMPLATES
from .regions.photo_lists import captions

PHRASES = 40_000
BATCH = 512
SHORT = 8  # maximum position of the end token of a short text
LR, LEAST_LR, WEIGHT_DECAY, WARM_UP = 3e-3, 1e-5, 0.02, 100
NAMED_SHARE = 0.35  # share of a batch: texts that have crops


def vocabulary(classes: list[Class], sentences: list[str]) -> tuple[list[str], int]:
    """List the texts to learn, those of the classes first, and how many these are."""
    named = list(dict.fromkeys([*Bank.build(classes).texts, *sentences]))
    words, common = nouns()
    rest = dict.fromkeys(
        [*words, *phrases([*common, *named[: len(named) // 2]], PHRASES), *pieces(sentences)]
    )
    known = set(named)
    return named + [text for text in rest if text not in known], len(named)


def load_vocabulary(folder: Path) -> tuple[list[str], Array]:
    """Read the texts and their targets, float32 (T, D), unit rows. Raises WeightsCorrupt."""
    with reading(folder, "a vocabulary"):
        texts = json.loads((folder / "texts.json").read_text("utf-8"))["texts"]
        return texts, np.load(folder / "targets.npy").astype(np.float32)


def centred(vectors: Array) -> Array:
    """Subtract the mean and normalise."""
    moved = vectors - vectors.mean(axis=0)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


class TextDistillRun(TimedRun):
    """Fit a text tower to the targets; progress is measured on texts that are held out."""

    def __init__(self, model: torch.nn.Module, folder: Path, minutes: float) -> None:
        self.model = model.train()
        self.texts, targets = load_vocabulary(folder)
        self.targets = torch.from_numpy(targets)
        self.named = json.loads((folder / "texts.json").read_text("utf-8"))["named"]
        self.tokenizer = open_clip.SimpleTokenizer(
            context_length=MODEL["text_cfg"]["context_length"]
        )
        self.rng, self.last_loss = np.random.default_rng(0), 0.0
        unnamed = np.arange(self.named, len(self.texts))
        self.held = self.rng.permutation(unnamed)[:1000]
        self.learned = np.setdiff1d(unnamed, self.held)
        parameters = [
            p
            for name, p in model.named_parameters()
            if not name.startswith(("visual.", "logit_scale"))
        ]
        optimizer = torch.optim.AdamW(
            parameters, lr=LR, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98), fused=True
        )
        recipe = TimedRecipe(minutes, lr=LR, warm_up=WARM_UP, floor=LEAST_LR / LR, report=100)
        super().__init__(TrainingState(model, optimizer, ema=0), recipe)

    def loss(self) -> torch.Tensor:
        """Return the distance of some texts from their targets."""
        count = int(BATCH * NAMED_SHARE)
        named = self.rng.integers(self.named, size=count)
        rows = np.concatenate([named, self.rng.choice(self.learned, BATCH - count)])
        texts = [_in_template(self.rng, self.texts[row]) for row in rows]
        loss = distance(embed(self.model, self.tokenizer(texts)), self.targets[rows])
        self.last_loss = float(loss.detach())
        return loss

    @torch.no_grad()
    def report(self) -> str:
        """Return the loss, and how close the texts are that are not learned from."""
        found = embed(self.model, self.tokenizer([self.texts[row] for row in self.held]))
        wanted = self.targets[self.held]
        nearest = (found @ wanted.T).argmax(dim=1).numpy() == np.arange(len(self.held))
        cosine = (found * wanted).sum(dim=1).mean()
        return (
            f"loss {self.last_loss:.4f}  unknown texts: cosine {cosine:.3f}, top-1 "
            f"{nearest.mean():.3f}"
        )


def embed(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Embed token ids (T, context): unit rows (T, D).

    Short and long texts are batched separately: a batch costs as much as its longest text, and most
    texts are words.
    """
    lengths = tokens.argmax(dim=1)  # position of the end token
    rows = torch.empty(len(tokens), EMBED)
    parts = [chosen for chosen in (lengths <= SHORT, lengths > SHORT) if chosen.any()]
    embedded = [text_tower.encode(model, tokens[chosen]) for chosen in parts]
    order = torch.cat([chosen.nonzero()[:, 0] for chosen in parts])
    return F.normalize(rows.index_copy(0, order, torch.cat(embedded)), dim=-1)


def distance(embedded: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Compare T unit embeddings with their targets, one by one and by all pairwise cosines."""
    own = 1 - (embedded * wanted).sum(dim=1).mean()
    pairs = F.mse_loss(embedded @ embedded.T, wanted @ wanted.T)
    return own + 4 * pairs


def _in_template(rng: np.random.Generator, text: str) -> str:
    return str(rng.choice(TEMPLATES)).replace("{}", text) if rng.random() < 0.35 else text


def main(
    store: StoredCrops,
    out: Annotated[Path, typer.Option(help="Folder for the vocabulary and the tower.")],
    data: Annotated[Path, typer.Option(help="Folder of the data sets, for their captions.")],
    minutes: Minutes = 12,
) -> None:
    """Write the vocabulary with its targets, and train the text tower on them."""
    limits.check({"--minutes": (minutes, limits.MINUTES)})
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "targets.npy").exists():
        classes, _ = read_classes(store)
        sentences = [text for _, text in captions(data / "flickr8k-1000", held_out=False)]
        texts, named = vocabulary(classes, sentences)
        typer.echo(f"{len(texts)} texts, {named} of them with crops")
        np.save(out / "targets.npy", centred(SentenceTeacher().encode(texts)).astype(np.float16))
        (out / "texts.json").write_text(json.dumps({"texts": texts, "named": named}))
    torch.manual_seed(0)
    model = checkpoints.make_model(MODEL)
    TextDistillRun(model, out, minutes).train()
    state: dict[str, Any] = {
        n: v for n, v in model.state_dict().items() if not n.startswith("visual.")
    }
    safetensors.torch.save_file(
        {n: v.contiguous().clone() for n, v in state.items()}, out / "text.safetensors"
    )


if __name__ == "__main__":
    command.run(main)
