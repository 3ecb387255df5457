"""Read damaged COCO files in a process of their own, so that one that ends the process is a failure
and not the end.

    python -m tests.fuzz.coco_script FOLDER SEED COUNT

Each seed is written to FOLDER/seed before its file is read: what is there when the process ends is
what ended it.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image

from segclip.errors import SegclipError
from segclip.evaluation import datasets, proposals, retrieval
from tests.fakes import FakeProposer, paint
from train.captions import tables
from train.scenes import photos

SQUARE = [10.0, 10.0, 60.0, 10.0, 60.0, 40.0, 10.0, 40.0]
CODE = {"size": [80, 100], "counts": "ljb02o01O001O1O001N2O1N101O"}
INSTANCES: dict[str, Any] = {
    "licenses": [{"id": 1, "name": "Attribution License"}],
    "images": [
        {
            "id": 1,
            "file_name": "a.png",
            "height": 80,
            "width": 100,
            "license": 1,
            "flickr_url": "https://x/1_2.jpg",
        },
        {"id": 2, "file_name": "b.png", "height": 80, "width": 100, "absent": ["dog"]},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [10, 10, 50, 30],
            "segmentation": [SQUARE],
            "iscrowd": 0,
        },
        {
            "id": 2,
            "image_id": 1,
            "category_id": 2,
            "bbox": [0, 0, 9, 9],
            "area": 81,
            "iscrowd": 1,
            "segmentation": {"size": [80, 100], "counts": [800, 40, 7160]},
        },
        {
            "id": 3,
            "image_id": 2,
            "category_id": 2,
            "bbox": [1, 1, 40, 40],
            "askable": True,
            "phrases": ["a big dog"],
            "segmentation": {"size": [80, 100], "counts": [0, 8000]},
        },
    ],
    "categories": [
        {"id": 1, "name": "cup", "texts": ["mug"]},
        {"id": 2, "name": "dog"},
        {"id": 3, "name": "kite"},
    ],
}
CAPTIONS: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.png"}, {"id": "2", "file_name": "b.png"}],
    "annotations": [
        {"image_id": 1, "caption": "a cup"},
        {"image_id": "2", "caption": "a dog, a big one"},
    ],
}
KARPATHY: dict[str, Any] = {
    "images": [
        {
            "filename": "a.png",
            "filepath": ".",
            "split": "test",
            "sentences": [{"raw": "a cup"}, {"raw": "a mug"}],
        },
        {"filename": "b.png", "split": "train", "sentences": [{"raw": "a dog"}]},
    ]
}
WEIRD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    80,
    2**31,
    2**40,
    10**6,
    10**30,
    -(10**30),
    0.5,
    80.0,
    1e9,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    ".",
    "..",
    "../a.png",
    "/etc/passwd",
    "a\0b",
    "\ud800",
    "x" * 5000,
    "80",
    "1",
    [],
    [[]],
    [[[]]],
    {},
    {"a": 1},
    [0] * 9,
    [1, 2, 3, 4],
    [SQUARE],
    [SQUARE[:4]],
    [[1e9] * 8],
    [[-1e9, 0] * 4],
    SQUARE,
    CODE,
    {"size": [80, 100], "counts": "\x00" * 40},
    {"size": [80, 100], "counts": "o" * 40},
    {"size": [80, 100], "counts": [2**31] * 3},
    {"size": [80, 100], "counts": [-5, 8005]},
    {"size": [10**6, 10**6], "counts": [0, 10**12]},
    {"size": "80", "counts": None},
)


def main(folder: Path, seed: int, count: int) -> None:
    """Read the files of ``count`` seeds."""
    (folder / "images").mkdir(parents=True)
    for name in ("a", "b"):
        pixels = paint(("red", (10, 10, 60, 40)), size=(80, 100)).pixels
        PIL.Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    sound = 0
    for number in range(seed, seed + count):
        (folder / "seed").write_text(str(number))
        rng = random.Random(number)
        table, readers = rng.choice(
            ((INSTANCES, LABELLED), (CAPTIONS, CAPTIONED), (KARPATHY, CAPTIONED))
        )
        name = "instances.json" if table is INSTANCES else "captions.json"
        (folder / name).write_bytes(damaged(rng, table) if number else json.dumps(table).encode())
        ended = [_ends_well(read, folder) for read in readers]  # every one of them
        sound += all(ended)
        (folder / name).unlink()
    sys.stdout.write(f"{sound}\n")


def damaged(rng: random.Random, table: Any) -> bytes:
    """Put something odd in, once or a few times."""
    table = json.loads(json.dumps(table))
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        _change(rng, table)
    data = json.dumps(table).encode("utf-8", "surrogatepass")
    kind = rng.random()
    if kind < 0.08:
        return data[: rng.randrange(len(data))]
    if kind < 0.16:
        place = rng.randrange(len(data))
        return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    if kind < 0.2:
        place = rng.randrange(len(data))
        return (
            data[:place]
            + rng.choice((b"[" * 50_000, b'{"a":' * 50_000, b"9" * 6000, b"\xff", b"\0"))
            + data[place:]
        )
    if kind < 0.22:
        return rng.choice(
            (
                b"",
                b"\n",
                b"[]",
                b"null",
                b"7",
                b'"a"',
                rng.randbytes(300),
                data.decode().encode("utf-16"),
            )
        )
    return data


def _change(rng: random.Random, table: Any) -> None:
    places = list(_places(table))
    if not places:
        return
    holder, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.15:
        del holder[key]
    elif kind < 0.25 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
    elif kind < 0.35 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = rng.choice(
            (holder[key] + 1, -holder[key], holder[key] * 10**6, holder[key] / 3, str(holder[key]))
        )
    elif kind < 0.45 and isinstance(holder[key], str):
        text = holder[key]
        place = rng.randrange(len(text) + 1)
        holder[key] = (
            text[:place] + rng.choice(("", "o", "\0", "é", "\x1b[2J", "/", "1")) + text[place + 1 :]
        )
    else:
        holder[key] = copy.deepcopy(rng.choice(WEIRD))


def _places(value: Any) -> list[tuple[Any, Any]]:
    pairs = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [place for key, inner in pairs for place in ((value, key), *_places(inner))]


def _ends_well(read: Callable[[Path], object], folder: Path) -> bool:
    try:
        read(folder)
    except SegclipError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error}") from error
        return False
    return True


def _evaluate(folder: Path) -> None:
    samples = datasets.read_folder(folder)
    for sample in samples:
        sample.load()
    proposals.evaluate_proposals(FakeProposer(), samples)


LABELLED: tuple[Callable[[Path], object], ...] = (
    _evaluate,
    tables.read,
    lambda folder: photos.load_photos(folder, held_out=False),
)
CAPTIONED: tuple[Callable[[Path], object], ...] = (
    lambda folder: tables.read(folder / "captions.json"),
    lambda folder: retrieval.read_captions(folder / "captions.json"),
)

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
