"""Write results to files: one function per format, and one line in `WRITERS`.

Masks are exported pixel-exact; files are written atomically.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from .. import registry
from ..files import atomic
from ..files.formats import PER_IMAGE
from ..types import Result
from .files import encode, to_json
from .raster import (
    IMAGE_KINDS,
    read_arrays,
    write_arrays,
    write_cutouts,
    write_labelmap,
    write_masks,
    write_overlay,
)
from .records import decode_rle, encode_rle, to_record, write_coco, write_record
from .vector import write_geojson, write_labelme, write_svg

__all__ = [
    "WRITERS",
    "Writer",
    "decode_rle",
    "encode",
    "encode_rle",
    "read_arrays",
    "save",
    "to_json",
    "to_record",
    "write_cutouts",
]

Writer: TypeAlias = Callable[[Result, Path], list[Path]]

WRITERS: Mapping[str, Writer] = {
    "overlay": write_overlay,
    "png": write_masks,
    "cutout": write_cutouts,
    "labelmap": write_labelmap,
    "json": write_record,
    "coco": write_coco,
    "labelme": write_labelme,
    "svg": write_svg,
    "geojson": write_geojson,
    "npz": write_arrays,
}
_DEFAULTS = {
    **dict.fromkeys(IMAGE_KINDS, "overlay"),
    ".json": "json",
    ".svg": "svg",
    ".geojson": "geojson",
    ".npz": "npz",
}


def save(result: Result, path: str | Path, *, format: str | None = None) -> list[Path]:
    """Write a result, synced to disk, and return the files written.

    An empty result writes no file in the formats of one file per row. format: a key of `WRITERS`;
    default: by suffix, "coco" for ".coco.json" and so on, "json" for any other ".json", and
    "overlay" for any other ".png" or ".jpg". Missing folders are made. Raises UnknownName, or
    NotWritable when the path cannot be written.
    """
    path = Path(path)
    name = _format_of(path) if format is None else format
    files = registry.choose(WRITERS, name, "format")(result, path)
    with atomic.writing_to(path):
        for file in files:
            atomic.sync_file(file)
        for folder in {file.parent for file in files}:
            atomic.sync_folder(folder)
    return files


def _format_of(path: Path) -> str:
    """Return the format that a file name asks for. Raises UnknownName."""
    name = path.name.lower()
    for format, suffix in PER_IMAGE.items():
        if "." in suffix and name.endswith(f".{suffix}"):  # desk.coco.json, desk.cutout.png
            return format
    return registry.choose(_DEFAULTS, path.suffix.lower(), "file suffix")
