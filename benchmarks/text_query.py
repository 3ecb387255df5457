"""Time a first and a second text on an image against ultralytics' FastSAM text prompt.

Both sides get the same FastSAM-s and ViT-B-32 (random weights: the same work, other numbers), the
same thresholds and the same pictures, models loaded and warm. ultralytics runs as it ships, with
its cheaper way to a second text; it lowers torch to one thread less than there are cores,
``--peer-threads`` gives it more.

Run: python -m benchmarks.text_query
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import open_clip
import safetensors.torch
import torch

from segclip.encoders.openclip import OpenClip, OpenClipOptions
from segclip.proposers.fastsam import FastSAM, FastSAMOptions
from segclip.proposers.yolo import quiet
from segclip.ranking.selection import Selection
from segclip.scoring.crops import POLICIES
from segclip.scoring.scorers import CropScorer
from segclip.segmenter import Segmenter
from segclip.types import Everything, Image
from tests.networks import random_network, sample_image, save_checkpoint
from tests.upstream import install_clip

LOOK = FastSAMOptions(image_size=640, confidence=0.4, iou=0.9, max_det=100)
SIZE = (480, 640)
FIRST_CLAIM, SECOND_CLAIM = 2.0, 100.0


@dataclass
class Side:
    """Hold one side: its answers to a first and a second text, and the seconds of each round."""

    name: str
    first: Callable[[Image, str], Any]
    second: Callable[[Any, str], Any]
    threads: int
    firsts: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def play(self, number: int, place: int) -> None:
        """Answer two new texts on a new image; round 0 warms up."""
        torch.set_num_threads(self.threads)
        image = sample_image(*SIZE, seed=number)
        start = time.perf_counter()
        state = self.first(image, f"a red thing {number}{place}")
        middle = time.perf_counter()
        self.second(state, f"a blue thing {number}{place}")
        if number:
            self.firsts.append(middle - start)
            self.seconds.append(time.perf_counter() - middle)


def main() -> int:
    """Print the table; return 1 when a claim does not hold."""
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        proposer, clip = make_weights(Path(folder))
        encoder = OpenClip(
            f"ViT-B-32/file:{clip}", options=OpenClipOptions(precision=options.precision)
        )
        finder = FastSAM(proposer, options=LOOK)
        sides = [ours(name, finder, encoder) for name in ("ultralytics", "context", "default")]
        sides.insert(0, theirs(proposer, options.peer_threads))
        for number in range(options.rounds + 1):
            for place, side in enumerate(sides):
                side.play(number, place)
        found = len(finder.decode(finder.encode(sample_image(*SIZE, seed=1)), Everything()))
    print(
        f"{found} candidates, {options.rounds} rounds, precision {options.precision}, torch "
        f"{torch.__version__}"
    )
    return report(sides)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--precision", default="auto", help="of segclip's encoder; ultralytics has float32 only"
    )
    parser.add_argument(
        "--peer-threads", type=int, help="threads for ultralytics; else what it chooses"
    )
    return parser.parse_args()


def make_weights(folder: Path) -> tuple[Path, Path]:
    """Write a FastSAM-s and a ViT-B-32 as published; ``import clip`` has the latter."""
    proposer = save_checkpoint(
        random_network("yolov8s-seg.yaml", candidates=400), folder / "FastSAM-s.pt"
    )
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32")
    install_clip(model.eval(), preprocess, open_clip.get_tokenizer("ViT-B-32"))
    clip = folder / "open_clip_model.safetensors"
    safetensors.torch.save_file(model.state_dict(), clip)
    return proposer, clip


def ours(policy: str, finder: FastSAM, encoder: OpenClip) -> Side:
    """Make segclip's side; policy ``ultralytics`` means one text and no templates, as there."""
    segmenter = Segmenter(finder, encoder, CropScorer(encoder, POLICIES[policy]))
    alike = policy == "ultralytics"

    def second(regions: Any, text: str) -> Any:
        if alike:
            return segmenter.rank(
                regions, text, templates="plain", backgrounds=(), selection=Selection(best=True)
            )
        return segmenter.rank(regions, text)

    def first(image: Image, text: str) -> Any:
        regions = segmenter.regions(image)
        second(regions, text)
        return regions

    return Side(f"segclip, policy {policy}", first, second, torch.get_num_threads())


def load_predictor(proposer: Path) -> tuple[Any, int]:
    """Return ultralytics' predictor, and the threads it lowers torch to: one less than cores."""
    with quiet():
        from ultralytics.models.fastsam import FastSAMPredictor

        settings = {
            "conf": LOOK.confidence,
            "iou": LOOK.iou,
            "imgsz": LOOK.image_size,
            "max_det": LOOK.max_det,
        }
        fixed = {
            "model": str(proposer),
            "device": "cpu",
            "retina_masks": True,
            "save": False,
            "verbose": False,
        }
        predictor = FastSAMPredictor(
            overrides={**settings, **fixed, "mode": "predict", "task": "segment"}
        )
        predictor.setup_model(None, verbose=False)
        return predictor, torch.get_num_threads()


def theirs(proposer: Path, threads: int | None) -> Side:
    """Make ultralytics' side: predict with a text, then prompt its results with another."""
    predictor, chosen = load_predictor(proposer)

    def first(image: Image, text: str) -> Any:
        bgr = np.ascontiguousarray(image.pixels[..., ::-1])
        predictor.set_prompts({})
        results = predictor(bgr)
        predictor.prompt(results, texts=text)
        return results

    def second(results: Any, text: str) -> Any:
        return predictor.prompt(results, texts=text)

    return Side("ultralytics", first, second, threads or chosen)


def report(sides: list[Side]) -> int:
    """Print medians and ratios; the claims are about the same crops."""
    peer, same = sides[:2]
    print(f"{'':28} {'threads':>7} {'first text':>12} {'':>7} {'second text':>12}")
    for side in sides:
        first, second = median(side.firsts), median(side.seconds)
        ratios = f"{median(peer.firsts) / first:6.1f}x", f"{median(peer.seconds) / second:6.0f}x"
        print(
            f"{side.name:28} {side.threads:7} {first:10.3f} s {ratios[0]} {second:10.4f} s "
            f"{ratios[1]}"
        )
    gains = median(peer.firsts) / median(same.firsts), median(peer.seconds) / median(same.seconds)
    held = gains[0] >= FIRST_CLAIM and gains[1] >= SECOND_CLAIM
    print(f"claims ({FIRST_CLAIM:g}x, {SECOND_CLAIM:g}x): {'hold' if held else 'DO NOT HOLD'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
