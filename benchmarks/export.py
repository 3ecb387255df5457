"""Time the batch export of two texts against a plain loop over ultralytics' FastSAM text prompt.

Both sides have the same photos, FastSAM-s and ViT-B-32 (random weights), write a PNG of each
answer, and take turns; the median counts. ultralytics runs as it ships, and once more with as many
threads as segclip. The second table times two workers against one with the mini models, which are
small enough to be bound by Python. Exits 1 unless the export does at least 3 times as many pictures
a minute as ultralytics as it ships, and two workers at least 1.6 times as many as one.

Run: python -m benchmarks.export
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeAlias

import numpy as np
import PIL.Image
import torch

from benchmarks.text_query import LOOK, load_predictor, make_weights
from segclip import batch, loading
from segclip.batch import Answers, ExportOptions, Running
from segclip.encoders.openclip import OpenClip
from segclip.proposers.fastsam import FastSAM
from segclip.ranking.selection import Selection
from segclip.scoring.crops import POLICIES
from segclip.scoring.scorers import CropScorer
from segclip.segmenter import Segmenter
from tests.networks import sample_image

Run: TypeAlias = Callable[[Path, Path], None]  # photos, and the folder for what is found

TEXTS = ("a red thing", "a blue thing")
TOGETHER = 2  # pictures of a round
CLAIM, WORKERS_CLAIM = 3.0, 1.6


def main() -> int:
    """Print both tables; 0 where the claims hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="of the first table, each of two new pictures"
    )
    parser.add_argument("--scenes", type=int, default=24, help="pictures of the second table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = against_upstream(
            folder, [draw(folder / f"photos{turn}", turn) for turn in range(options.rounds)]
        )
        scenes = Path(__file__).parent.parent / "tests" / "data" / "scenes" / "images"
        second = with_workers(folder, sorted(scenes.glob("*.jpg"))[: options.scenes])
    return 0 if first and second else 1


def draw(folder: Path, turn: int) -> Path:
    """Write pictures a random network finds something in."""
    folder.mkdir()
    for number in range(TOGETHER):
        seed = 1 + TOGETHER * turn + number
        PIL.Image.fromarray(sample_image(480, 640, seed=seed).pixels).save(
            folder / f"{number:02d}.png"
        )
    return folder


def against_upstream(folder: Path, rounds: list[Path]) -> bool:
    """Time one process of ours and a loop of upstream's, models loaded and warm, in turns."""
    proposer, clip = make_weights(folder)
    threads = torch.get_num_threads()
    loop, chosen = upstream(proposer)
    sides: list[tuple[str, int, Run]] = [
        ("segclip export", threads, segclip(proposer, clip)),
        ("loop over upstream, as it ships", chosen, loop),
        ("the same, given all threads", threads, loop),
    ]
    taken = {name: list[float]() for name, _, _ in sides}
    for turn, photos in enumerate(rounds):
        for place, (name, used, run) in enumerate(sides):
            torch.set_num_threads(used)
            start = time.perf_counter()
            run(photos, folder / f"out{turn}{place}")
            taken[name].append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    print(
        f"{len(rounds)} rounds of {TOGETHER} pictures, {len(TEXTS)} texts, FastSAM-s + ViT-B-32, "
        "random weights"
    )
    middle = {name: median(seconds) for name, seconds in taken.items()}
    ours, shipped, _ = middle.values()
    for name, used, _ in sides:
        rate, times = 60 * TOGETHER / middle[name], middle[name] / ours
        print(
            f"  {name:33}{used} threads{middle[name]:8.1f} s{rate:8.1f} pictures a "
            f"minute{times:7.2f}x"
        )
    return held(shipped / ours, CLAIM)


def segclip(proposer: Path, clip: Path) -> Run:
    """Make the export with models that are loaded and warm."""
    encoder = OpenClip(f"ViT-B-32/file:{clip}")
    segmenter = Segmenter(
        FastSAM(proposer, options=LOOK), encoder, CropScorer(encoder, POLICIES["ultralytics"])
    )
    segmenter(sample_image(480, 640), TEXTS)
    answers = Answers(selection=Selection(best=True), backgrounds=(), templates="plain")
    options = ExportOptions(formats=("png",), answers=answers)

    def run(photos: Path, out: Path) -> None:
        load, fingerprint = loading.load, loading.fingerprint
        loading.load, loading.fingerprint = (lambda *a, **k: segmenter), (lambda *a, **k: {})
        try:
            batch.export(photos, out, TEXTS, options=options)
        finally:
            loading.load, loading.fingerprint = load, fingerprint

    return run


def upstream(proposer: Path) -> tuple[Run, int]:
    """Return the loop of ultralytics' documentation, a prediction for each image and text.

    Also returns how many threads ultralytics lowers torch to.
    """
    predictor, chosen = load_predictor(proposer)  # afterwards torch has its threads again
    predictor(np.zeros((480, 640, 3), np.uint8))

    def run(photos: Path, out: Path) -> None:
        out.mkdir()
        for photo in sorted(photos.iterdir()):
            predictor.set_prompts({})
            results = predictor(str(photo))
            for number, text in enumerate(TEXTS):
                for found in predictor.prompt(results, texts=text):
                    masks = found.masks.data.numpy() if found.masks is not None else ()
                    for row, mask in enumerate(masks):
                        path = out / f"{photo.stem}.{number}.{row}.png"
                        PIL.Image.fromarray((mask > 0).astype(np.uint8) * 255).save(path)

    return run, chosen


def with_workers(folder: Path, scenes: list[Path]) -> bool:
    """Time one and two workers on the mini models, less the time of a run with one image."""
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in scenes))
    (folder / "one.txt").write_text(f"{scenes[0]}\n")
    rates = {}
    for workers in (1, 2):
        taken = {}
        for name in ("one", "list"):
            start = time.perf_counter()
            running = Running(workers=workers)
            batch.export(
                folder / f"{name}.txt",
                folder / f"{name}-{workers}",
                ["apple", "dog"],
                running=running,
            )
            taken[name] = time.perf_counter() - start
        rates[workers] = (len(scenes) - 1) / (taken["list"] - taken["one"])
        print(
            f"  mini, {workers} worker{'s' * (workers > 1)}: {60 * rates[workers]:6.1f} pictures a "
            "minute"
        )
    return held(rates[2] / rates[1], WORKERS_CLAIM)


def held(ratio: float, claim: float) -> bool:
    """Say whether a claim holds."""
    print(f"  {ratio:.2f}x (claimed: {claim:g}x): {'holds' if ratio >= claim else 'DOES NOT HOLD'}")
    return ratio >= claim


if __name__ == "__main__":
    sys.exit(main())
