"""Write files whole or not at all."""

from __future__ import annotations

import io
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import PIL.Image

from ..errors import BadPrompt


def numbered(path: Path, row: int) -> Path:
    """Give the path of row ``row``'s own picture."""
    return path.with_name(f"{path.stem}.{row:02d}.png")


def to_json(record: Any) -> bytes:
    """Encode as readable JSON, every character as itself."""
    return json.dumps(record, ensure_ascii=False, indent=1).encode("utf-8", "replace")


def encode(picture: PIL.Image.Image, kind: str, *, profile: bytes | None = None) -> bytes:
    """Encode a picture as PNG or JPEG. profile: of its colours (ICC), for readers who ask."""
    file = io.BytesIO()
    options: dict[str, Any] = {"quality": 95}
    if kind == "PNG":
        options = {"compress_level": 1}  # level 6 takes 3 times as long for 15 % less
    picture.save(file, kind, icc_profile=profile, **options)
    return file.getvalue()


def write(path: Path, data: bytes) -> Path:
    """Write bytes under a temporary name in the same folder, then rename: no reader ever meets half a file."""
    temporary = path.with_name(f".{uuid4().hex[:16]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise BadPrompt(f"{path}: cannot be written, {error.strerror}") from None
    finally:
        with suppress(OSError):  # gone after the rename
            temporary.unlink()
    return path
