"""Compare the assembly of 300 masks of a 4000x3000 image with ultralytics' retina masks.

Each side has a process of its own, so that its peak memory is its own; the claim is about what
assembly adds to what was resident before it (torch alone is 250 to 600 MB). Exits 1 unless ours is
at least 10 times faster, adds a fifth of the memory at most, and agrees to a mean IoU of 0.99. Run:
python -m benchmarks.mask_assembly
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from segclip.proposers.fastsam import FastSAM, FastSAMOptions
from segclip.proposers.logits import assemble
from segclip.proposers.yolo import quiet
from segclip.types import Masks
from tests.networks import random_network, sample_image, save_checkpoint

SIZE = (3000, 4000)
COUNT = 300
SIDES = ("ours", "upstream")


def main() -> int:
    """Measure both sides and print the table; 0 where the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=2, help="runs of each side, of which the fastest counts"
    )
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(options.side, options.folder, options.rounds)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        share = prepare(folder)
        for side in SIDES:
            again = ["--side", side, "--folder", name, "--rounds", str(options.rounds)]
            subprocess.run([sys.executable, "-m", "benchmarks.mask_assembly", *again], check=True)
        return report(folder, share)


def prepare(folder: Path) -> float:
    """Store an output of FastSAM-s's network; return the mean share of the image in a box."""
    network = random_network("yolov8s-seg.yaml", candidates=1200, size=640)
    options = FastSAMOptions(max_det=COUNT, precision="float32")
    found = FastSAM(save_checkpoint(network, folder / "FastSAM-s.pt"), options=options).encode(
        sample_image(*SIZE)
    )
    torch.save([found.prototypes, found.coefficients, found.boxes], folder / "output.pth")
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    return float(sides.prod(dim=1).mean() / (SIZE[0] * SIZE[1]))


def measure(side: str, folder: Path, rounds: int) -> None:
    """Run one side; leave its time, memory and masks in the folder."""
    output = torch.load(folder / "output.pth")
    run: Callable[..., Masks | torch.Tensor] = assemble if side == "ours" else retina_masks()
    run(*output, (96, 128))  # threads and libraries are up before the clock starts
    resident, seconds = memory("VmRSS"), []
    for round_ in range(rounds):
        start = time.perf_counter()
        answer = run(*output, SIZE)
        seconds.append(time.perf_counter() - start)
        if round_ < rounds - 1:
            del answer  # no part of the next peak
    peak = memory("VmHWM")
    facts = {"seconds": min(seconds), "peak": peak, "rise": peak - resident, "masks": len(answer)}
    (folder / f"{side}.json").write_text(json.dumps(facts))
    store(answer, folder / f"{side}.npz")


def retina_masks() -> Callable[..., torch.Tensor]:
    """Give what ultralytics' segmentation predictor does when retina masks are asked for."""
    with quiet():
        from ultralytics.utils.ops import process_mask_native

    def run(
        prototypes: torch.Tensor,
        coefficients: torch.Tensor,
        boxes: torch.Tensor,
        size: tuple[int, int],
    ) -> torch.Tensor:
        masks = process_mask_native(prototypes, coefficients, boxes, size)
        keep = masks.amax((-2, -1)) > 0
        return masks if keep.all() else masks[keep]

    return run


def store(answer: Masks | torch.Tensor, path: Path) -> None:
    """Write tight boxes and packed bitmaps; empty masks are left out, as upstream does."""
    if isinstance(answer, torch.Tensor):
        tight = [Masks.from_dense(mask[None].numpy()) for mask in answer]
        masks = Masks(
            np.concatenate([mask.boxes for mask in tight]), tuple(m.bitmaps[0] for m in tight), SIZE
        )
    else:
        masks = answer[answer.areas > 0]
    np.savez(path, masks.boxes, *(np.packbits(bitmap) for bitmap in masks.bitmaps))


def restore(path: Path) -> Masks:
    """Read what ``store`` wrote."""
    with np.load(path) as stored:
        boxes, *packed = (stored[name] for name in stored.files)
    bitmaps = []
    for (x1, y1, x2, y2), bits in zip(boxes, packed, strict=True):
        height, width = int(y2 - y1), int(x2 - x1)
        bitmaps.append(
            np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)
        )
    return Masks(boxes, tuple(bitmaps), SIZE)


def memory(line: str) -> float:
    """Read one line of this process's memory, in MB."""
    found = re.search(rf"{line}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if not found:
        raise SystemExit("this benchmark reads /proc/self/status, which only Linux has")
    return int(found[1]) / 1024


def report(folder: Path, share: float) -> int:
    """Print the table and the ratios; 0 where the claim holds."""
    ours, upstream = (json.loads((folder / f"{side}.json").read_text()) for side in SIDES)
    print(
        f"{SIZE[1]}x{SIZE[0]}, boxes cover {share:.1%} of the picture on average, "
        f"{torch.get_num_threads()} threads"
    )
    print(f"{'':<10}{'masks':>8}{'seconds':>10}{'peak MB':>10}{'rise MB':>10}")
    for side, facts in zip(SIDES, (ours, upstream), strict=True):
        print(
            f"{side:<10}{facts['masks']:>8}{facts['seconds']:>10.2f}{facts['peak']:>10.0f}{facts['rise']:>10.0f}"
        )
    mine, theirs = restore(folder / "ours.npz"), restore(folder / "upstream.npz")
    if len(mine) != len(theirs):
        print(f"MISSED: {len(mine)} masks are not {len(theirs)}")
        return 1
    overlap = np.mean([mine[[row]].iou(theirs[[row]]).item() for row in range(len(mine))])
    faster, smaller, whole = (upstream[key] / ours[key] for key in ("seconds", "rise", "peak"))
    held = faster >= 10 and smaller >= 5 and overlap >= 0.99
    print(f"{faster:.1f} times faster (claimed: 10), mean IoU {overlap:.5f} (0.99)")
    print(f"adds {smaller:.1f} times less memory (5); whole process {whole:.1f} times less")
    print("holds" if held else "MISSED")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
