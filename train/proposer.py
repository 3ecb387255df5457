"""Train the mini proposer: a YOLOv8n-seg with one class, "object", on scenes composed as they are needed.

    python -m train.proposer --photos ../shared/coco-dev --out weights/mini/proposer

Ultralytics' own trainer and losses; ours is the data: every tile is new, with exact masks instead of polygons.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import safetensors.torch
import torch
import typer
from torch.utils.data import Dataset

from segclip.proposers import yolo
from segclip.proposers.edges import EdgeOptions
from segclip.types import Array

with yolo.quiet():
    from ultralytics.data.build import build_dataloader
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.models.yolo.segment import SegmentationTrainer
    from ultralytics.nn.tasks import SegmentationModel

from .glyphs import Glyph, load_glyphs
from .photos import Photo, load_photos
from .scenes import SceneConfig, compose

ARCHITECTURE = "yolov8n-seg.yaml"  # plain convolutions: a step on a CPU takes a third of YOLO11n's
TILE = 320  # px; training tiles show objects at the size that scenes of 640 x 480 do
BATCH = 8
MIN_PIXELS = 60  # visible pixels an object needs to be a target
SCENES = SceneConfig(size=(TILE, TILE), objects=(1, 7), photo_share=0.6, across=(20, 240))
SETTINGS: dict[str, Any] = {
    "name": "proposer",
    "exist_ok": True,
    "data": "scenes",
    "imgsz": TILE,
    "batch": BATCH,
    "nbs": BATCH,
    "epochs": 100,  # until the time is up
    "workers": 0,
    "device": "cpu",
    "optimizer": "AdamW",
    "lrf": 0.02,
    "cos_lr": True,
    "warmup_epochs": 0.6,
    "weight_decay": 1e-3,
    "momentum": 0.9,
    "box": 12.0,  # boxes and masks against confidence; ultralytics' 7.5 leaves the masks of short trainings vague
    "mask_ratio": 4,
    "overlap_mask": True,
    "close_mosaic": 0,
    "amp": False,
    "val": False,
    "plots": False,
    "seed": 0,
    "deterministic": False,
}


class SceneTiles(Dataset[dict[str, Any]]):
    """Compose one training tile per index and epoch, in the form that ultralytics' losses read."""

    collate_fn = staticmethod(YOLODataset.collate_fn)

    def __init__(self, glyphs: list[Glyph], photos: list[Photo], length: int, first: int = 0) -> None:
        self.glyphs, self.photos, self.length, self.first = glyphs, photos, length, first
        self.epoch = multiprocessing.Value("i", 0)  # shared with the loader's workers

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        seed = self.first + self.epoch.value * self.length + index
        scene = compose(seed, self.glyphs, self.photos, SCENES)
        codes, counts = np.unique(scene.layers, return_counts=True)
        codes = codes[(codes != -1) & (counts >= MIN_PIXELS)]
        boxes = np.array([_box(scene.layers == code) for code in codes], np.float32).reshape(-1, 4)
        return {
            "img": torch.from_numpy(np.ascontiguousarray(scene.pixels.transpose(2, 0, 1))),
            "masks": torch.from_numpy(_targets(scene.layers, codes, seed))[None],
            "cls": torch.zeros(len(codes), 1),
            "bboxes": torch.from_numpy(boxes),
            "batch_idx": torch.zeros(len(codes)),
            "im_file": f"scene {seed}",
            "ori_shape": (TILE, TILE),
            "resized_shape": (TILE, TILE),
        }


def _box(mask: Array) -> tuple[float, float, float, float]:
    """Give the tight box as centre and size over the tile's side."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x1, x2, y1, y2 = xs[0], xs[-1] + 1, ys[0], ys[-1] + 1
    return (x1 + x2) / 2 / TILE, (y1 + y2) / 2 / TILE, (x2 - x1) / TILE, (y2 - y1) / TILE


def _targets(layers: Array, codes: Array, seed: int) -> Array:
    """Number the targets on the prototypes' grid, a quarter of the tile's side, from 1 on; 0 is none.

    Each cell takes one of its sixteen pixels, which one by the seed, so that no edge is shifted on average.
    """
    dx, dy = seed & 3, seed >> 2 & 3
    grid = layers[dy::4, dx::4]
    numbers = np.zeros(grid.shape, np.uint8)
    for number, code in enumerate(codes, 1):
        numbers[grid == code] = number
    return numbers


class ProposerTrainer(SegmentationTrainer):
    """Hand ultralytics' trainer our tiles and skip its own validation: `segclip evaluate` measures the whole line."""

    tiles: SceneTiles
    folder: Path | None = None  # written by an earlier run, to start from

    def get_dataset(self) -> dict[str, Any]:
        """Describe the one class."""
        return {"train": "scenes", "val": "scenes", "nc": 1, "names": {0: "object"}, "channels": 3}

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> SegmentationModel:
        """Build the network."""
        model = SegmentationModel(cfg, nc=1, ch=3, verbose=verbose)
        if weights:
            model.load(weights)
        elif self.folder:
            model.load_state_dict(safetensors.torch.load_file(self.folder / "model.safetensors"))
        return model.to(memory_format=torch.channels_last)

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Load tiles."""
        return build_dataloader(self.tiles, batch_size, self.args.workers, shuffle=False, rank=rank)

    def validate(self) -> tuple[dict[str, float], float]:
        """Validate nothing; the later epoch is the better one."""
        return {}, float(self.epoch + 1)

    def final_eval(self) -> None:
        """Evaluate nothing."""

    def plot_training_labels(self) -> None:
        """Plot nothing: there is no fixed set of labels."""


class Progress:
    """Say every 50 steps how far training is."""

    def __init__(self, started: float, hours: float) -> None:
        self.started, self.hours, self.done = started, hours, 0

    def __call__(self, trainer: SegmentationTrainer) -> None:
        """Count one step."""
        self.done += 1
        if self.done % 50 == 0:
            minutes = (time.monotonic() - self.started) / 60
            losses = "  ".join(f"{name} {float(value):.3f}" for name, value in trainer.tloss.items())
            rate = self.done * BATCH / minutes / 60
            typer.echo(
                f"step {self.done}  {rate:.1f} images/s  {self.hours * 60 - minutes:.0f} min left  {losses}", err=True
            )


def main(
    out: Annotated[Path, typer.Option(help="Folder for model.safetensors and config.json.")],
    photos: Annotated[Path | None, typer.Option(help="COCO-format folder of photos for backgrounds.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder for checkpoints and logs.")] = Path("runs"),
    hours: Annotated[float, typer.Option(help="Time to train; the learning rate falls to its end by then.")] = 3.3,
    scenes: Annotated[int, typer.Option(help="Scenes an epoch, each composed once.")] = 800,
    start: Annotated[Path | None, typer.Option(help="Start from the weights of this folder, or checkpoint.")] = None,
    first: Annotated[int, typer.Option(help="The first scene's seed.")] = 0,
    rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 1.5e-3,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in RUNS.")] = False,
) -> None:
    """Train the mini proposer and write it."""
    cv2.setNumThreads(1)
    threads = torch.get_num_threads()
    tiles = SceneTiles(load_glyphs(), load_photos(photos, held_out=False), scenes, first)
    last = runs / "proposer" / "weights" / "last.pt"
    ProposerTrainer.folder = start if start and start.is_dir() else None
    model = str(last if resume else start if start and start.is_file() else ARCHITECTURE)
    settings = SETTINGS | {"model": model, "time": hours, "lr0": rate, "resume": resume}
    ProposerTrainer.tiles = tiles
    trainer = ProposerTrainer(overrides=settings | {"project": str(runs.resolve())})
    trainer.add_callback("on_train_epoch_start", lambda t: setattr(tiles.epoch, "value", t.epoch))
    trainer.add_callback("on_train_start", lambda t: torch.set_num_threads(threads))
    started = time.monotonic()
    trainer.add_callback("on_train_batch_end", Progress(started, hours))
    trainer.train()
    config: dict[str, Any] = {"architecture": ARCHITECTURE, "nc": 1, "stride": 32, "edges": asdict(EdgeOptions())}
    config |= {
        "image_size": 768,
        "confidence": 0.01,
        "iou": 0.8,
    }  # enlarging finds more small objects
    yolo.save(trainer.ema.ema, out, config)
    typer.echo(
        f"{out}: {trainer.epoch + 1} epochs of {scenes} scenes in {(time.monotonic() - started) / 60:.0f} minutes"
    )


if __name__ == "__main__":
    from .command import run

    run(main)
