"""Compose captioned scenes of few drawn objects, to train and evaluate ``train.pacl``.

    python -m train.few runs/few --count 3000

Writes images/, captions.jsonl (a caption for each object; the validation scenes are held out) and
scenes.json, which outlines the objects of the held-out scenes only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from segclip.evaluation.datasets import read_folder
from segclip.files import atomic

from .engine import command, limits
from .engine.files import claim
from .engine.options import ValidationCount
from .scenes.compose import VALIDATION_SEED, SceneConfig
from .scenes.write import write_folder

FEW = SceneConfig(
    (192, 192), (2, 3), (48, 96), photo_share=0.0, repeat_share=0.0, crowding=0.05, every=8
)


def write(folder: Path, count: int, *, held_out: int = 200, first: int = VALIDATION_SEED) -> None:
    """Write ``count`` training scenes and ``held_out`` validation scenes.

    first: seed of the first validation scene.
    """
    lines = []
    parts = {"train": range(count), "val": range(first, first + held_out)}
    for split, seeds in parts.items():  # the second table replaces the first
        if not seeds:
            continue
        write_folder(folder, seeds, [], config=FEW)
        for sample in read_folder(folder):
            names = [
                name for name, large in zip(sample.names, sample.askable, strict=True) if large
            ]
            row = {"image": sample.path.name, "caption": _captions(names), "split": split}
            lines.append(json.dumps(row))
    atomic.write(folder / "captions.jsonl", ("\n".join(lines) + "\n").encode())


def _captions(names: Sequence[str]) -> list[str]:
    return [f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in dict.fromkeys(names)]


def main(
    folder: Path,
    count: Annotated[int, typer.Option(help="Number of training scenes.")] = 3000,
    held_out: ValidationCount = 200,
    first: Annotated[
        int, typer.Option(help="Seed of the first validation scene.")
    ] = VALIDATION_SEED,
) -> None:
    """Write captioned scenes."""
    limits.check(
        {
            "--count": (count, limits.NONE_OR_MORE),
            "--held-out": (held_out, limits.COUNT),
            "--first": (first, limits.SEED),
        }
    )
    claim(folder)
    write(folder, count, held_out=held_out, first=first)
    typer.echo(f"wrote {count} scenes and {held_out} held out to {folder}")


if __name__ == "__main__":
    command.run(main)
