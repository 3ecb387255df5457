"""Time clicks and boxes against SAM's own predictor; weigh "everything" on 12 megapixels.

Both sides run the same network with the same weights: the shipped mini-sam, or a random ViT-B
(--vit-b). They look at a drawn scene, for boxes and "everything" enlarged to 12 megapixels. A
process of its own measures the memory. Exits 1 unless a click takes under 50 ms, 200 boxes at once
are at least 5 times faster than upstream one by one, with the same masks, and 500 masks stay under
1.5 GB above the model's own memory. Run: python -m benchmarks.prompts
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import PIL.Image
import torch
from segment_anything import SamPredictor, sam_model_registry

from benchmarks.mask_assembly import memory
from segclip.proposers.grid import GridOptions
from segclip.proposers.promptable import SAMOptions
from segclip.proposers.sam import SAM
from segclip.types import Boxes, Everything, Image, Points

ROOT = Path(__file__).parent.parent
SCENE = ROOT / "samples" / "desk.png"
PHOTO = (3000, 4000)
CLICK_CLAIM, BOXES_CLAIM, MEMORY_CLAIM = 0.050, 5.0, 1500.0  # s, times, MB
BOXES, MASKS = 200, 500
# whatever the grid finds is kept: three masks a click, a few of them without a pixel
LAX = GridOptions(points_per_side=14, min_quality=-9, min_stability=0, nms=1)


def main() -> int:
    """Print the tables; 0 where the claims hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="clicks timed; the median counts")
    parser.add_argument("--vit-b", action="store_true", help="a ViT-B instead of mini-sam; minutes")
    parser.add_argument("--weigh", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.weigh:
        return weigh(options.weigh)
    with tempfile.TemporaryDirectory() as folder:
        path = random_vit_b(Path(folder)) if options.vit_b else ROOT / "weights" / "mini" / "sam"
        clicked = clicks(path, options.rounds, claim=None if options.vit_b else CLICK_CLAIM)
        boxed = boxes(path)
        again = [sys.executable, "-m", "benchmarks.prompts", "--weigh", str(path)]
        weighed = subprocess.run(again, check=False).returncode == 0
    return 0 if clicked and boxed and weighed else 1


def random_vit_b(folder: Path) -> Path:
    """Write a random ViT-B in the published format."""
    torch.manual_seed(0)
    path = folder / "sam_vit_b.pth"
    torch.save(sam_model_registry["vit_b"]().state_dict(), path)
    return path


def scene(size: tuple[int, int] | None = None) -> Image:
    """Read the scene, enlarged to ``size`` (H, W)."""
    image = PIL.Image.open(SCENE).convert("RGB")
    return Image(np.array(image.resize(size[::-1]) if size else image), "scene")


def clicks(path: Path, rounds: int, claim: float | None) -> bool:
    """Time clicks at different places of an encoded image, with edges fitted as when served."""
    image, proposer = scene(), SAM(path)
    height, width = image.size
    predictor = SamPredictor(proposer.network)
    features = proposer.encode(image)
    predictor.set_image(image.pixels)
    places = np.random.default_rng(0).integers((0, 0), (width, height), (rounds + 1, 2))

    def anew(x: int, y: int) -> None:
        predictor.set_image(image.pixels)
        predictor.predict(np.array([[x, y]]), np.array([1]))

    ways: dict[str, Callable[[int, int], Any]] = {
        "segclip, decode": lambda x, y: proposer.decode(features, Points([(x, y)])),
        "upstream, set_image kept": lambda x, y: predictor.predict(
            np.array([[x, y]]), np.array([1])
        ),
        "upstream, run again": anew,
    }
    taken = {
        name: median([timed(way, *place) for place in places.tolist()][1:])
        for name, way in ways.items()
    }
    ours = taken["segclip, decode"]
    print(f"a click on {width}x{height}, three masks, {torch.get_num_threads()} threads")
    for name, seconds in taken.items():
        print(f"  {name:28}{seconds * 1000:9.1f} ms{seconds / ours:8.1f}x")
    return claim is None or held(ours < claim, f"under {claim * 1000:.0f} ms")


def boxes(path: Path) -> bool:
    """Time 200 boxes on a photo, all at once and one by one, on an image that is encoded."""
    image, proposer = scene(PHOTO), SAM(path, options=SAMOptions())  # upstream fits no edges
    predictor = SamPredictor(proposer.network)
    predictor.set_image(image.pixels)
    features = proposer.encode(image)
    rng = np.random.default_rng(0)
    corners = rng.uniform((0, 0), (3300, 2300), (BOXES, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(100, 700, (BOXES, 2))], axis=1).astype(
        np.float32
    )
    proposer.decode(features, Boxes(boxes[:2]))
    start = time.perf_counter()
    found = proposer.decode(features, Boxes(boxes))
    ours = time.perf_counter() - start
    predictor.predict(box=boxes[0], multimask_output=False)
    theirs, same = 0.0, []
    for row, box in enumerate(boxes):
        start = time.perf_counter()
        masks, _, _ = predictor.predict(box=box, multimask_output=False)
        theirs += time.perf_counter() - start
        own = found.masks.full(row)
        union = np.count_nonzero(own | masks[0])
        same.append(np.count_nonzero(own & masks[0]) / union if union else 1.0)
    print(
        f"{BOXES} boxes on {PHOTO[1]}x{PHOTO[0]}: {ours:.2f} s, upstream one by one {theirs:.2f} s"
    )
    print(
        f"  {theirs / ours:.1f}x faster; IoU with upstream's masks {np.mean(same):.5f}, least "
        f"{min(same):.5f}"
    )
    return held(
        theirs >= BOXES_CLAIM * ours and min(same) >= 0.999, f"{BOXES_CLAIM:g}x, same masks"
    )


def weigh(path: Path) -> int:
    """Segment everything in a photo; compare peak memory with that after loading the model."""
    proposer = SAM(path, options=SAMOptions(grid=LAX))
    proposer.decode(proposer.encode(scene()), Points([(50, 50)]))  # libraries are up
    image = scene(PHOTO)
    before, start = memory("VmRSS"), time.perf_counter()
    found = proposer.decode(proposer.encode(image), Everything())
    rise = memory("VmHWM") - before
    print(
        f"everything on {PHOTO[1]}x{PHOTO[0]}: {len(found)} masks in "
        f"{time.perf_counter() - start:.1f} s, {rise:.0f} MB"
    )
    return (
        0
        if held(
            rise < MEMORY_CLAIM and len(found) >= MASKS,
            f"{MASKS} masks under {MEMORY_CLAIM:.0f} MB",
        )
        else 1
    )


def timed(way: Callable[[int, int], Any], x: int, y: int) -> float:
    """Run once: seconds."""
    start = time.perf_counter()
    way(x, y)
    return time.perf_counter() - start


def held(holds: bool, claim: str) -> bool:
    """Say whether a claim holds."""
    print(f"  claim ({claim}): {'holds' if holds else 'DOES NOT HOLD'}")
    return holds


if __name__ == "__main__":
    sys.exit(main())
