"""Train the mini CLIP on regions: crops cut as serving cuts them, against the texts that mean them.

    python -m train.region_text crops runs/crops --photos ../shared/coco-dev --caltech ../shared/caltech-101
    python -m train.region_text train runs/crops --out weights/mini/clip --minutes 90

A step shows B crops and says one text of every object there is. The loss is what serving computes: a softmax over all
texts that tells objects apart (several may be right: a red apple is an apple), and for each crop and text the sigmoid of
their logit against the background texts (the two-way softmax of serving), so that an absent thing scores low.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import open_clip
import torch
import torch.nn.functional as F
import typer

from segclip.crops import CropPolicy, View, cut, fill_outside
from segclip.encoders import Serving, checkpoints, text_tower
from segclip.errors import BadPrompt
from segclip.templates import expand
from segclip.types import Array, Image, Masks

from .glyphs import Glyph, load_glyphs
from .scenes import HELD_OUT_EVERY, Photo, SceneConfig, compose, load_photos

STORED = 96  # px of a stored crop, at CONTEXT
CONTEXT = 1.5
SIZE = 64  # px the image tower sees
EARLY_SIZE, EARLY_SHARE = 48, 0.45  # it sees less in the first part of a run: half the cost
OTHER_TEXTS = 400  # classes spoken of in a step besides those shown
WRONG_WEIGHT = 40.0  # what all wrong texts of a crop weigh together, against 1 for the right ones
SHARD = 2048
MODEL = {
    "embed_dim": 256,
    "vision_cfg": {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear", "image_size": SIZE},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 96, "heads": 4, "layers": 2},
}
PREPROCESS = {"mean": [0.45] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
BACKGROUNDS = ("background", "something else")
TEMPLATES = ("{}", "a {}", "the {}", "a photo of a {}", "a picture of a {}", "one {}")
DENSE = SceneConfig(objects=(9, 18), across=(26, 200), crowding=0.5)
OBJECT_SHARE, CALTECH_SHARE, PHOTO_SHARE = 0.78, 0.10, 0.05  # of a batch; the rest is background


@dataclass(frozen=True)
class Class:
    """Name one thing a crop can be: every text that means it, its name first, and the word for its colour or ""."""

    texts: tuple[str, ...]
    colour: str = ""


def drawn_classes(glyphs: Sequence[Glyph]) -> list[Class]:
    """Name the drawn objects."""
    return [Class(glyph.texts, glyph.colour) for glyph in glyphs]


def photo_classes(names: Sequence[str]) -> list[Class]:
    """Name photographed things by their folder or category."""
    return [Class((name.replace("_", " ").lower(),)) for name in names]


def scene_crops(seed: int, glyphs: Sequence[Glyph], photos: Sequence[Photo]) -> Iterator[tuple[Array, Array, int]]:
    """Cut a scene's objects and two pieces of background: (uint8 (S, S, 3), mask uint8 (S, S), glyph or -1)."""
    scene = compose(seed, glyphs, photos, DENSE)
    kept = np.flatnonzero((scene.visible >= 0.3) & (scene.masks.areas >= 150))
    image = Image(scene.pixels)
    yield from _with_masks(image, scene.masks[kept], [scene.glyphs[row] for row in kept])
    rng = np.random.default_rng([seed, 2])
    blobs = [_blob(rng, scene.layers) for _ in range(2)]
    yield from _with_masks(image, Masks.from_windows([blob for blob in blobs if blob], scene.masks.size), [-1] * 2)


def _blob(rng: np.random.Generator, layers: Array) -> tuple[int, int, Array] | None:
    """Find an ellipse of background: nothing drawn and no labelled thing of the photo in it."""
    height, width = layers.shape
    for _ in range(8):
        w, h = (int(v) for v in np.exp(rng.uniform(np.log(20), np.log(180), 2)))
        x, y = int(rng.integers(width - w)), int(rng.integers(height - h))
        bitmap = np.zeros((h, w), np.uint8)
        cv2.ellipse(bitmap, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, 1, -1)
        if (layers[y : y + h, x : x + w][bitmap > 0] == -1).mean() > 0.97:
            return x, y, bitmap.astype(bool)
    return None


def _with_masks(image: Image, masks: Masks, labels: Sequence[int]) -> Iterator[tuple[Array, Array, int]]:
    pixels = cut(image, masks, View(CONTEXT, "keep"), STORED)
    for row in range(len(masks)):
        canvas = Image(np.repeat(masks.full(row)[..., None].astype(np.uint8) * 255, 3, axis=2))
        inside = cut(canvas, masks[[row]], View(CONTEXT, "black"), STORED)[0, ..., 0]
        yield pixels[row], inside, labels[row]


def photo_crops(photos: Sequence[Photo], categories: Sequence[Sequence[int]]) -> Iterator[tuple[Array, Array, int]]:
    """Cut the labelled things of photos; the label is the category's place."""
    for photo, kinds in zip(photos, categories, strict=True):
        masks = Masks.from_windows([(0, 0, photo.labels == number) for number in range(1, len(kinds) + 1)], photo.labels.shape)
        kept = np.flatnonzero(masks.areas >= 400)
        yield from _with_masks(Image(np.ascontiguousarray(photo.pixels)), masks[kept], [kinds[row] for row in kept])


def caltech_files(folder: Path, *, held_out: bool) -> list[tuple[Path, int]]:
    """List the photos of a folder tree of class folders: every fifth of each class when ``held_out``, else the others."""
    files = []
    for label, kind in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for row, file in enumerate(sorted(kind.glob("*.jpg"))):
            if (row % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out:
                files.append((file, label))
    return files


def caltech_crops(files: Sequence[tuple[Path, int]]) -> Iterator[tuple[Array, Array, int]]:
    """Show whole photos as regions."""
    for file, label in files:
        pixels = np.ascontiguousarray(cv2.imread(str(file), cv2.IMREAD_COLOR)[..., ::-1])
        whole = Masks.from_windows([(0, 0, np.ones(pixels.shape[:2], bool))], pixels.shape[:2])
        yield from _with_masks(Image(pixels), whole, [label])


def write_shards(folder: Path, name: str, crops: Iterator[tuple[Array, Array, int]]) -> int:
    """Write crops in shards NAME-NNN.npz: pixels and mask as one RGBA uint8 array, and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[Array, Array, int]] = []
    count = 0

    def flush() -> None:
        rgba = np.stack([np.dstack([pixels, mask]) for pixels, mask, _ in rows])
        path = folder / f"{name}-{count // SHARD:03d}.npz"
        partial = path.with_suffix(".part.npz")
        np.savez(partial, rgba=rgba, labels=np.array([label for *_, label in rows], np.int16))
        partial.replace(path)

    for row in crops:
        rows.append(row)
        if len(rows) == SHARD:
            flush()
            count, rows = count + SHARD, []
    if rows:
        flush()
    return count + len(rows)


class CropStore:
    """Hold all stored crops of one kind, by class; more shards may appear while training reads."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.shards: list[tuple[Array, Array]] = []
        self.seen: set[Path] = set()
        self.reload()

    def reload(self) -> None:
        """Read the shards that were not there before."""
        for path in sorted(self.folder.glob(f"{self.name}-[0-9][0-9][0-9].npz")):
            if path not in self.seen:
                data = np.load(path)
                self.shards.append((data["rgba"], data["labels"]))
                self.seen.add(path)
        self.where = np.concatenate([np.stack([np.full(len(l), s), np.arange(len(l))], 1) for s, (_, l) in enumerate(self.shards)])
        self.labels = np.concatenate([labels for _, labels in self.shards])

    def order(self, rng: np.random.Generator, *, drawn: bool) -> Iterator[int]:
        """Go through the crops without end in random order, only the labelled ones or only the background."""
        rows = np.flatnonzero((self.labels >= 0) == drawn)
        while True:
            yield from rng.permutation(rows)

    def __getitem__(self, row: int) -> tuple[Array, int]:
        shard, index = self.where[row]
        return self.shards[shard][0][index], int(self.labels[row])


def augment(rng: np.random.Generator, rgba: Array, size: int) -> Array:
    """Cut a stored crop again: another context, turn, light and a mask as imprecise as a proposer's; uint8 (size, size, 3)."""
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


@dataclass(frozen=True)
class Bank:
    """Hold every text of every class.

    means: bool (T, C), the classes each text is right for. names: (C,) row of each class's name. of: rows of each class.
    """

    texts: tuple[str, ...]
    means: Array
    names: Array
    of: tuple[Array, ...]

    @classmethod
    def build(cls, classes: Sequence[Class]) -> Bank:
        """Collect texts, plurals and colour phrases."""
        rows: dict[str, set[int]] = {}
        for index, kind in enumerate(classes):
            for text in kind.texts:
                for said in (text, _plural(text), *([f"{kind.colour} {text}"] if kind.colour else [])):
                    rows.setdefault(said, set()).add(index)
        texts = tuple(rows)
        means = np.zeros((len(texts), len(classes)), bool)
        for row, text in enumerate(texts):
            means[row, list(rows[text])] = True
        names = np.array([texts.index(kind.texts[0]) for kind in classes])
        return cls(texts, means, names, tuple(np.flatnonzero(means[:, index]) for index in range(len(classes))))

    def sample(self, rng: np.random.Generator, classes: Array) -> Array:
        """Pick one text for each of some classes, its name half the time: rows (C,), each once."""
        names = rng.random(len(classes)) < 0.5
        rows = [self.names[index] if name else rng.choice(self.of[index]) for index, name in zip(classes, names, strict=True)]
        return np.unique(rows)


def _plural(text: str) -> str:
    if text.endswith(("s", "x", "ch", "sh")):
        return text + "es"
    return text[:-1] + "ies" if text.endswith("y") and text[-2:-1] not in "aeiou" else text + "s"


def region_loss(logits: torch.Tensor, right: torch.Tensor, backgrounds: torch.Tensor, is_thing: torch.Tensor) -> torch.Tensor:
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

    minutes: float = 90
    batch: int = 192
    lr: float = 2e-3
    text_lr: float = 1e-3
    weight_decay: float = 0.05
    warm_up: int = 100
    ema: float = 0.998
    seed: int = 0


class Run:
    """Train, keep checkpoints, go on from the last one."""

    def __init__(self, store: Path, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        table = json.loads((store / "classes.json").read_text())
        self.classes = [Class(tuple(row["texts"]), row["colour"]) for row in table["classes"]]
        self.offsets = table["offsets"]
        self.bank = Bank.build(self.classes)
        self.stores = {name: CropStore(store, name) for name in self.offsets}
        torch.manual_seed(recipe.seed)
        self.rng = np.random.default_rng(recipe.seed)
        self.model = checkpoints.make_model(MODEL)
        with torch.no_grad():
            self.model.token_embedding.weight.mul_(0.5)  # words never trained on should say little
            self.model.logit_scale.fill_(math.log(14))
        self.model.visual.to(memory_format=torch.channels_last)
        text = [p for name, p in self.model.named_parameters() if not name.startswith("visual.")]
        groups = [{"params": list(self.model.visual.parameters()), "lr": recipe.lr}, {"params": text, "lr": recipe.text_lr}]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, betas=(0.9, 0.98), fused=True)
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.step, self.spent = 0, 0.0
        self.tokenizer = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Make batches without end: crops (B, 3, S, S) normalised and their classes (B,), -1 for background."""
        feeds = self._feeds()
        while True:
            if self.step and self.step % 200 == 0:
                for store in self.stores.values():
                    store.reload()
                feeds = self._feeds()
            early = self.spent < EARLY_SHARE * self.recipe.minutes * 60
            size = EARLY_SIZE if early else SIZE
            crops, labels = [], []
            for (store, offset, rows), count in feeds:
                for _ in range(count):
                    rgba, label = store[next(rows)]
                    crops.append(augment(self.rng, rgba, size))
                    labels.append(label + offset if label >= 0 else -1)
            pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
            yield (pixels - PREPROCESS["mean"][0]) / PREPROCESS["std"][0], torch.tensor(labels)

    def _feeds(self) -> list[tuple[tuple[CropStore, int, Iterator[int]], int]]:
        wanted = (("drawn", OBJECT_SHARE, True), ("caltech", CALTECH_SHARE, True), ("photo", PHOTO_SHARE, True))
        shares = [(name, share, drawn) for name, share, drawn in wanted if name in self.stores]
        shares.append(("drawn", 1 - sum(share for _, share, _ in shares), False))
        return [
            ((self.stores[name], self.offsets[name], self.stores[name].order(self.rng, drawn=drawn)), round(share * self.recipe.batch))
            for name, share, drawn in shares
        ]  # fmt: skip

    def train(self) -> None:
        """Train until the recipe's minutes are spent."""
        self.model.train()
        last = time.monotonic()
        for pixels, labels in self.batches():
            share = self.spent / (self.recipe.minutes * 60)
            if share >= 1:
                break
            loss = self._update(pixels, labels, share)
            now = time.monotonic()
            self.spent, last = self.spent + now - last, now
            if self.step % 50 == 0:
                rate = self.step * self.recipe.batch / self.spent
                scale = float(self.model.logit_scale.detach().exp())
                left = self.recipe.minutes - self.spent / 60
                typer.echo(f"step {self.step}  loss {loss:.3f}  scale {scale:.1f}  {rate:.0f} crops/s  {left:.0f} min left", err=True)
            if self.step % 250 == 0:
                self.keep()

    def _update(self, pixels: torch.Tensor, labels: torch.Tensor, share: float) -> float:
        rate = min(1, (self.step + 1) / self.recipe.warm_up) * (0.5 + 0.5 * math.cos(math.pi * share)) + 0.002
        for group, base in zip(self.optimizer.param_groups, (self.recipe.lr, self.recipe.text_lr), strict=True):
            group["lr"] = base * rate
        rows = self.bank.sample(self.rng, self._spoken_of(labels))
        said = [expand(self.bank.texts[row], [str(self.rng.choice(TEMPLATES))])[0] for row in rows]
        texts = F.normalize(text_tower.encode(self.model, self.tokenizer([*said, *BACKGROUNDS])), dim=-1)  # (T + K, D)
        images = self.model.visual(pixels.contiguous(memory_format=torch.channels_last))  # float32: faster than bfloat16 here
        logits = self.model.logit_scale.exp() * F.normalize(images, dim=-1) @ texts.T  # (B, T + K)
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
        self.step += 1
        self._blend()
        return float(loss.detach())

    def _spoken_of(self, labels: torch.Tensor) -> Array:
        others = self.rng.choice(len(self.classes), min(OTHER_TEXTS, len(self.classes)), replace=False)
        return np.union1d(labels[labels >= 0].numpy(), others)

    def _blend(self) -> None:
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def keep(self) -> None:
        """Write a checkpoint to go on from."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / "last.part"
        state = {"model": self.model.state_dict(), "average": self.average, "optimizer": self.optimizer.state_dict()}
        torch.save(state | {"step": self.step, "spent": self.spent}, partial)
        partial.replace(self.folder / "last.pt")

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        path = self.folder / "last.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.spent = state["average"], state["step"], state["spent"]
        self.rng = np.random.default_rng([self.recipe.seed, self.step])

    def export(self, out: Path) -> None:
        """Write the averaged weights for serving."""
        model = checkpoints.make_model(MODEL)
        model.load_state_dict(self.average)
        policy = CropPolicy((View(1.5, "blur", 0.5), View(1.1, "blur", 0.5)))
        serving = Serving(policy=policy, templates=("{}", "a {}", "a photo of a {}"), backgrounds=BACKGROUNDS)
        checkpoints.save(model, out, model_cfg=MODEL, preprocess_cfg=PREPROCESS, serving=serving)


app = typer.Typer(help=__doc__, add_completion=False)


@app.command()
def crops(
    folder: Path,
    photos: Annotated[Path | None, typer.Option(help="COCO-format folder of photos.")] = None,
    caltech: Annotated[Path | None, typer.Option(help="Folder tree of class folders.")] = None,
    scenes: Annotated[int, typer.Option(help="Scenes to cut.")] = 12_000,
    first: Annotated[int, typer.Option(help="The first scene's seed.")] = 500_000,
) -> None:
    """Cut and store training crops."""
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    glyphs, behind = load_glyphs(), load_photos(photos, held_out=False)
    classes, offsets = drawn_classes(glyphs), {"drawn": 0}
    if caltech:
        offsets["caltech"] = len(classes)
        classes += photo_classes(sorted(path.name for path in caltech.iterdir() if path.is_dir()))
        write_shards(folder, "caltech", caltech_crops(caltech_files(caltech, held_out=False)))
    if photos:
        offsets["photo"] = len(classes)
        names, kinds = photo_kinds(photos)
        classes += photo_classes(names)
        write_shards(folder, "photo", photo_crops(behind, kinds))
    rows: list[dict[str, Any]] = [{"texts": kind.texts, "colour": kind.colour} for kind in classes]
    (folder / "classes.json").write_text(json.dumps({"classes": rows, "offsets": offsets}))
    cutting = (crop for seed in range(first, first + scenes) for crop in scene_crops(seed, glyphs, behind))
    typer.echo(f"{write_shards(folder, 'drawn', cutting)} crops of {scenes} scenes in {folder}")


def photo_kinds(folder: Path) -> tuple[list[str], list[list[int]]]:
    """List the category names of a COCO-format folder, and for each training photo its things' categories."""
    table = json.loads((folder / "instances.json").read_text())
    names = [row["name"] for row in table["categories"]]
    place = {row["id"]: index for index, row in enumerate(table["categories"])}
    kinds = []
    for row, image in enumerate(sorted(table["images"], key=lambda row: row["file_name"])):
        if row % HELD_OUT_EVERY != HELD_OUT_EVERY - 1:
            things = [t for t in table["annotations"] if t["image_id"] == image["id"] and not t["iscrowd"]]
            kinds.append([place[t["category_id"]] for t in sorted(things, key=lambda t: -t["area"])])
    return names, kinds


@app.command()
def train(
    store: Path,
    out: Annotated[Path, typer.Option(help="Folder for model.safetensors and config.json.")],
    runs: Annotated[Path, typer.Option(help="Folder for checkpoints.")] = Path("runs/region_text"),
    minutes: float = 90,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in RUNS.")] = False,
) -> None:
    """Train the mini CLIP and write it."""
    if not (store / "classes.json").exists():
        raise BadPrompt(f"{store} holds no crops; make them with: python -m train.region_text crops {store}")
    cv2.setNumThreads(1)
    run = Run(store, runs, Recipe(minutes=minutes))
    if resume:
        run.resume()
    run.train()
    run.keep()
    run.export(out)
    typer.echo(f"{out}: {run.step} steps in {run.spent / 60:.0f} minutes")


if __name__ == "__main__":
    app()
