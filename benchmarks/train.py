"""Time contrastive training against open_clip's trainer, on the same model, data and threads.

Both read picture files and captions of the same length and train whole epochs in this process, each
after one epoch to warm up; open_clip with its loader's workers as many as there are cores. Exits 1
unless ours trains at least as many images a second and waits for data less than a tenth of the
time.

Run: python -m benchmarks.train [--model small-vit] [--images 512] [--batch 64]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import open_clip
import torch
from open_clip.loss import ClipLoss
from open_clip.transform import image_transform_v2
from open_clip_train.data import get_csv_dataset
from open_clip_train.train import train_one_epoch

from segclip.encoders import checkpoints
from train import shapes
from train.contrastive import Contrastive, ContrastiveRecipe, parts_of
from train.engine.loop import Loop, LoopSettings
from train.engine.start import fresh


class NamedOutputs(torch.nn.Module):
    """Answer as open_clip's trainer wants it: by names."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def logit_scale(self) -> torch.Tensor:
        """Give the scale that is trained."""
        scale: torch.Tensor = self.model.logit_scale
        return scale

    def forward(self, images: torch.Tensor, texts: torch.Tensor) -> dict[str, torch.Tensor]:
        """Embed both."""
        image_features, text_features, scale = self.model(images, texts)[:3]
        return {
            "image_features": image_features,
            "text_features": text_features,
            "logit_scale": scale,
        }


def theirs(folder: Path, name: str, batch: int) -> float:
    """Train two epochs by open_clip's trainer; images a second of the second."""
    start = fresh(name)
    table = folder / "train.csv"
    rows = [
        f"{item.image}\t{item.captions[0]}"
        for item in parts_of(folder, None, share=0.1, skip_bad=False)[0]
    ]
    table.write_text("image\tcaption\n" + "\n".join(rows) + "\n")
    columns = {
        "train_data": str(table),
        "csv_img_key": "image",
        "csv_caption_key": "caption",
        "csv_separator": "\t",
    }
    more = {
        "distributed": False,
        "batch_size": batch,
        "workers": os.cpu_count(),
        "device": "cpu",
        "precision": "fp32",
    }
    rest = {
        "distill": False,
        "accum_freq": 1,
        "skip_scheduler": True,
        "grad_clip_norm": 1.0,
        "horovod": False,
    }
    plain = {"rank": 0, "local_rank": 0, "world_size": 1, "log_every_n_steps": 1000, "wandb": False}
    options: Any = SimpleNamespace(**columns, **more, **rest, **plain)
    transform = image_transform_v2(
        checkpoints.preprocess_config(start.checkpoint, start.size), is_train=True
    )
    tokenizer = open_clip.SimpleTokenizer(
        context_length=start.checkpoint.model_cfg["text_cfg"]["context_length"]
    )
    data = {"train": get_csv_dataset(options, transform, True, tokenizer=tokenizer)}
    model = NamedOutputs(start.model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1
    )
    for epoch in range(2):
        began = time.perf_counter()
        train_one_epoch(model, data, ClipLoss(), epoch, optimizer, None, None, None, options)
    return len(data["train"].dataloader) * batch / (time.perf_counter() - began)


def ours(folder: Path, name: str, batch: int) -> tuple[float, float]:
    """Train two epochs; return the second's images per second and its fraction spent on waiting."""
    settings = LoopSettings(epochs=2, batch=batch)
    task = Contrastive(
        fresh(name),
        parts_of(folder, None, share=0.1, skip_bad=False),
        ContrastiveRecipe(),
        settings,
    )
    made = Loop(task, folder / "run", settings, {})
    with contextlib.redirect_stderr(sys.stdout):
        made.run()
    from train.engine.journal import read_metrics

    row = read_metrics(folder / "run")[-1]
    return row["images/s"], row["data wait"]


def main() -> int:
    """Print both rates; 0 where the claim holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="small-vit")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes.write(folder, options.images + 16, held_out=16)
        rate, waited = ours(folder, options.model, options.batch)
        other = theirs(folder, options.model, options.batch)
    print(f"{options.model}, batch {options.batch}, {torch.get_num_threads()} threads")
    print(f"  segclip    {rate:7.1f} images/s, {waited:.1%} of the time waiting for data")
    print(f"  open_clip  {other:7.1f} images/s")
    holds = rate >= other and waited < 0.1
    print(
        f"  {rate / other:.2f}x (claimed: 1x, waiting under 10 %): "
        f"{'holds' if holds else 'DOES NOT HOLD'}"
    )
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
