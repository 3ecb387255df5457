"""Write results to files: one function a format and one line in `WRITERS`.

Masks leave pixel-exact, files appear whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from .. import registry
from ..errors import NotWritable
from ..files import atomic
from ..types import Result
from .files import encode, to_json
from .raster import (
    PICTURES,
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
    **dict.fromkeys(PICTURES, "overlay"),
    ".json": "json",
    ".svg": "svg",
    ".geojson": "geojson",
    ".npz": "npz",
}


def save(result: Result, path: str | Path, *, format: str | None = None) -> list[Path]:
    """Write a result, to the disk, and return the files written; none when a format of one file a
    row has no rows.

    format: a key of `WRITERS`; left out, the suffix tells, ".json" being "json" and ".png" or
    ".jpg" "overlay". Missing folders are made. Raises UnknownName, or NotWritable when the path
    cannot be written.
    """
    path = Path(path)
    name = (
        registry.choose(_DEFAULTS, path.suffix.lower(), "file suffix") if format is None else format
    )
    files = registry.choose(WRITERS, name, "format")(result, path)
    try:
        for file in files:
            atomic.sync_file(file)
        for folder in {file.parent for file in files}:
            atomic.sync_folder(folder)
    except OSError as error:
        raise NotWritable(f"{path}: cannot be written, {error.strerror or error}") from error
    return files
