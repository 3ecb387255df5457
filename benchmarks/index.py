"""Time indexing whole photographs against the usual loop over PIL and open_clip's encode_image.

Both sides have ViT-B-32 (random weights), the same files and all cores; models are loaded before
the clock. The loop has float32, open_clip's own choice; segclip takes bfloat16 where the processor
computes in it, and then the loop is measured in that too. segclip reads ahead while the model
looks, or runs a process a core (--workers). They take turns; the median of the rounds counts. Exits
1 unless the best of ours does at least 1.5 times as many pictures a second as the loop in float32;
the ratio in the same precision is printed beside it.

Run on an idle machine: python -m benchmarks.index [--pictures 64] [--size 960x1280] [--rounds 3]
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import open_clip
import PIL.Image
import safetensors.torch
import torch

from benchmarks.export import held
from segclip import ModelSpec
from segclip.batch import Running
from segclip.encoders.openclip import choose_precision
from segclip.search import IndexOptions, make_index
from segclip.search.embedding import TOGETHER

CLAIM = 1.5
MODEL = "ViT-B-32"
LOOP = "open_clip + PIL loop"


def main() -> int:
    """Print the table; 0 where the claim holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="960x1280", help="height x width of the pictures")
    options = parser.parse_args()
    height, width = (int(side) for side in options.size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = draw(folder / "photos", options.pictures, height, width)
        torch.manual_seed(0)
        model, _, preprocess = open_clip.create_model_and_transforms(MODEL)
        safetensors.torch.save_file(
            model.eval().state_dict(), folder / "open_clip_model.safetensors"
        )
        ways: dict[str, Callable[[int], float]] = {
            LOOP: lambda turn: plain(model, preprocess, photos)
        }
        served = choose_precision("auto", torch.device("cpu"))
        same = (
            LOOP if served == torch.float32 else f"the loop, {str(served).removeprefix('torch.')}"
        )
        if same != LOOP:
            lower = copy.deepcopy(model).to(served)
            ways[same] = lambda turn: plain(lower, preprocess, photos)
        for workers in sorted({1, os.cpu_count() or 1}):
            ways[f"segclip index --workers {workers}"] = partial(ours, folder, photos, workers)
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(options.rounds):
            for way, measure in ways.items():
                rates[way].append(measure(turn))
    medians = {way: float(np.median(measured)) for way, measured in rates.items()}
    print(
        f"{options.pictures} JPEGs of {width} x {height}, {MODEL}, {os.cpu_count()} cores, "
        f"{options.rounds} rounds"
    )
    for way, rate in medians.items():
        print(f"  {way:28}{rate:7.1f} a second ({min(rates[way]):.1f} to {max(rates[way]):.1f})")
    best = max(rate for way, rate in medians.items() if way.startswith("segclip"))
    print(f"  in the same precision: {best / medians[same]:.2f}x")
    return 0 if held(best / medians[LOOP], CLAIM) else 1


def draw(folder: Path, count: int, height: int, width: int) -> Path:
    """Write JPEGs that are as hard to decode as photographs: smooth shapes under a little noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        shapes = cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), (width, height))
        noisy = shapes + rng.normal(scale=6, size=shapes.shape)
        PIL.Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
            folder / f"{number:04d}.jpg", quality=90
        )
    return folder


def plain(model: torch.nn.Module, preprocess: object, photos: Path) -> float:
    """Embed one picture after the other: pictures a second."""
    assert callable(preprocess)
    files = sorted(photos.iterdir())
    dtype = next(model.parameters()).dtype
    rows: list[torch.Tensor] = []
    start = time.perf_counter()
    with torch.inference_mode():
        for file in files:
            if len(rows) == 1:  # the first warms up
                start = time.perf_counter()
            rows.append(
                model.encode_image(preprocess(PIL.Image.open(file))[None].to(dtype), normalize=True)
            )
    return (len(files) - 1) / (time.perf_counter() - start)


def ours(folder: Path, photos: Path, workers: int, turn: int) -> float:
    """Return the images indexed per second, less the time of a run of one group per process."""
    few = folder / f"few-{workers}-{turn}"
    few.mkdir()
    for file in sorted(photos.iterdir())[: TOGETHER * workers]:
        (few / file.name).symlink_to(file)
    counts, times = [], []
    for source in (few, photos):
        weights = f"{MODEL}/file:{folder}/open_clip_model.safetensors"
        options = IndexOptions(ModelSpec(encoder=weights, device="cpu"))
        start = time.perf_counter()
        done = make_index(
            source,
            options,
            out=folder / f"index-{source.name}-{workers}-{turn}",
            running=Running(workers=workers),
        )
        times.append(time.perf_counter() - start)
        counts.append(done.images)
    return (counts[1] - counts[0]) / (times[1] - times[0])


if __name__ == "__main__":
    sys.exit(main())
