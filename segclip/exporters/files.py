"""Write files whole or not at all."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import PIL.Image

from ..files import atomic


def numbered(path: Path, row: int) -> Path:
    """Return the path of row ``row``'s own image."""
    return path.with_name(f"{path.stem}.{row:02d}.png")


def to_json(record: Any) -> bytes:
    """Encode as readable JSON, every character as itself; bytes of a name that are no UTF-8 as
    JSON's escapes.
    """
    return json.dumps(record, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")


def encode(picture: PIL.Image.Image, kind: str, *, profile: bytes | None = None) -> bytes:
    """Encode a picture as PNG or JPEG. profile: of its colours (ICC), for readers who ask."""
    file = io.BytesIO()
    options: dict[str, Any] = {"quality": 95}
    if kind == "PNG":
        options = {"compress_level": 1}  # level 6 takes 3 times as long for 15 % less
    picture.save(file, kind, icc_profile=profile, **options)
    return file.getvalue()


def write(path: Path, data: bytes) -> Path:
    """Write bytes whole or not at all; whoever needs them to outlive a power cut syncs them. Raises
    NotWritable.
    """
    return atomic.write(path, data, sync=False)
