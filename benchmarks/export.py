"""Time the batch export against a plain loop over ultralytics' FastSAM text prompt: two texts, one run.

Both sides have the same photos, FastSAM-s and ViT-B-32 (random weights) and write a PNG of each answer. The second
table times two workers against one with the mini models, which are small enough to be bound by Python. Exits 1 unless
the export does at least 3 times as many pictures a minute, and two workers at least 1.6 times as many as one.

Run: python -m benchmarks.export
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from benchmarks.text_query import LOOK, make_weights
from segclip import batch, loading
from segclip.batch import Answers, ExportOptions, Running
from segclip.crops import POLICIES
from segclip.encoders.openclip import OpenClip
from segclip.pipeline import Segmenter
from segclip.proposers.fastsam import FastSAM
from segclip.proposers.yolo import quiet
from segclip.scoring import CropScorer
from segclip.selection import Selection
from tests.networks import picture

TEXTS = ("a red thing", "a blue thing")
CLAIM, WORKERS_CLAIM = 3.0, 1.6


def main() -> int:
    """Print both tables; 0 where the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=6, help="pictures of the first table")
    parser.add_argument("--scenes", type=int, default=24, help="pictures of the second table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = draw(folder / "photos", options.photos)
        first = against_upstream(folder, photos)
        scenes = Path(__file__).parent.parent / "tests" / "data" / "scenes" / "images"
        second = with_workers(folder, sorted(scenes.glob("*.jpg"))[: options.scenes])
    return 0 if first and second else 1


def draw(folder: Path, count: int) -> Path:
    """Write pictures a random network finds something in."""
    folder.mkdir()
    for number in range(count):
        PIL.Image.fromarray(picture(480, 640, seed=number + 1).pixels).save(folder / f"{number:02d}.png")
    return folder


def against_upstream(folder: Path, photos: Path) -> bool:
    """Time one process of ours and a loop of upstream's, models loaded and warm."""
    proposer, clip = make_weights(folder)
    encoder = OpenClip(f"ViT-B-32/file:{clip}")
    segmenter = Segmenter(FastSAM(proposer, options=LOOK), encoder, CropScorer(encoder, POLICIES["ultralytics"]))
    load, fingerprint = loading.load, loading.fingerprint
    loading.load, loading.fingerprint = (lambda *a, **k: segmenter), (lambda *a, **k: {})  # loaded before the clock
    try:
        answers = Answers(selection=Selection(best=True), backgrounds=(), templates="plain")
        options = ExportOptions(formats=("png",), answers=answers)
        segmenter(photos / "00.png", TEXTS)
        start = time.perf_counter()
        batch.export(photos, folder / "ours", TEXTS, options=options)
        ours = time.perf_counter() - start
    finally:
        loading.load, loading.fingerprint = load, fingerprint
    threads = torch.get_num_threads()
    theirs = upstream(proposer, photos, folder / "theirs")
    torch.set_num_threads(threads)
    count = len(list(photos.iterdir()))
    print(f"{count} pictures, {len(TEXTS)} texts, FastSAM-s + ViT-B-32, random weights")
    for name, seconds in (("segclip export", ours), ("loop over upstream", theirs)):
        print(f"  {name:20}{seconds:8.1f} s{60 * count / seconds:9.1f} pictures a minute")
    return held(theirs / ours, CLAIM)


def upstream(proposer: Path, photos: Path, out: Path) -> float:
    """Loop as its documentation does: a prediction with the text for each picture and text; seconds."""
    out.mkdir()
    with quiet():
        from ultralytics.models.fastsam import FastSAMPredictor

        settings = {"conf": LOOK.confidence, "iou": LOOK.iou, "imgsz": LOOK.image_size, "max_det": LOOK.max_det}
        fixed = {"model": str(proposer), "device": "cpu", "retina_masks": True, "save": False, "verbose": False}
        predictor = FastSAMPredictor(overrides={**settings, **fixed, "mode": "predict", "task": "segment"})
        predictor.setup_model(None, verbose=False)
    predictor(np.zeros((480, 640, 3), np.uint8))
    start = time.perf_counter()
    for photo in sorted(photos.iterdir()):
        predictor.set_prompts({})
        results = predictor(str(photo))
        for number, text in enumerate(TEXTS):
            for found in predictor.prompt(results, texts=text):
                for row, mask in enumerate(found.masks.data.numpy() if found.masks is not None else ()):
                    PIL.Image.fromarray((mask > 0).astype(np.uint8) * 255).save(
                        out / f"{photo.stem}.{number}.{row}.png"
                    )
    return time.perf_counter() - start


def with_workers(folder: Path, scenes: list[Path]) -> bool:
    """Time one and two workers on the mini models, without the time they take to load: that of one more picture run."""
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in scenes))
    (folder / "one.txt").write_text(f"{scenes[0]}\n")
    rates = {}
    for workers in (1, 2):
        taken = {}
        for name in ("one", "list"):
            start = time.perf_counter()
            running = Running(workers=workers)
            batch.export(folder / f"{name}.txt", folder / f"{name}-{workers}", ["apple", "dog"], running=running)
            taken[name] = time.perf_counter() - start
        rates[workers] = (len(scenes) - 1) / (taken["list"] - taken["one"])
        print(f"  mini, {workers} worker{'s' * (workers > 1)}: {60 * rates[workers]:6.1f} pictures a minute")
    return held(rates[2] / rates[1], WORKERS_CLAIM)


def held(ratio: float, claim: float) -> bool:
    """Say whether a claim holds."""
    print(f"  {ratio:.2f}x (claimed: {claim:g}x): {'holds' if ratio >= claim else 'DOES NOT HOLD'}")
    return ratio >= claim


if __name__ == "__main__":
    sys.exit(main())
