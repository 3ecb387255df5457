"""The ``segclip samples`` command: copy the sample images to a folder of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..errors import NotWritable, Unsupported

_SUFFIXES = (".jpg", ".png")


@dataclass(frozen=True)
class SamplesOptions:
    """Where the samples go."""

    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder for the images; made if missing.")
    ]


def run(options: SamplesOptions) -> None:
    """Copy the samples, and print what to try. A file of the user's own is not replaced."""
    from ..files import atomic

    folder = options.folder
    images = {path.name: path.read_bytes() for path in find()}
    for name, data in images.items():
        target = folder / name
        if target.is_file() and target.read_bytes() == data:
            continue
        if target.exists() or target.is_symlink():
            raise NotWritable(f"{target} is there already and is not that sample; move it away")
    for name, data in images.items():
        if not (folder / name).exists():
            atomic.write(folder / name, data)
        typer.echo(f"wrote {folder / name}")
    typer.echo(f"try: segclip segment {folder / 'coffee.jpg'} 'a spoon'")


def find() -> list[Path]:
    """Return the sample images: the installed ones, else the repository's."""
    root = Path(__file__).resolve().parents[2]
    for name in ("segclip_samples", "samples"):
        found = sorted(path for path in (root / name).glob("*") if path.suffix in _SUFFIXES)
        if found:
            return found
    raise Unsupported(f"the samples are not installed beside segclip in {root}; reinstall segclip")
