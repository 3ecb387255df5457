"""Files are encoded alike each time, and numbered by row."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from segclip.errors import NotWritable
from segclip.exporters.files import encode, numbered, to_json, write
from segclip.files.profiles import srgb


def test_rows_are_numbered_with_two_digits_or_more() -> None:
    assert numbered(Path("out/desk.mask.png"), 3) == Path("out/desk.mask.03.png")
    assert numbered(Path("out/desk.png"), 123) == Path("out/desk.123.png")


def test_json_is_utf_8_and_only_undecodable_bytes_are_escaped() -> None:
    assert to_json("ein Löwe 🦁") == '"ein Löwe 🦁"'.encode()
    assert to_json(["b\udce9"]) == b'[\n "b\\udce9"\n]'
    assert json.loads(to_json(["b\udce9"])) == ["b\udce9"]


@pytest.mark.parametrize(("kind", "tolerance"), [("PNG", 0), ("JPEG", 3)])
def test_an_image_is_encoded_with_its_profile(kind: str, tolerance: int) -> None:
    pixels = np.full((8, 8, 3), (200, 120, 60), np.uint8)
    data = encode(PIL.Image.fromarray(pixels), kind, profile=srgb())
    assert data == encode(PIL.Image.fromarray(pixels), kind, profile=srgb())
    image = PIL.Image.open(io.BytesIO(data))
    assert (image.format, image.info["icc_profile"]) == (kind, srgb())
    assert np.abs(np.asarray(image).astype(int) - pixels).max() <= tolerance


def test_writing_replaces_a_file_and_reports_a_path_it_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a"
    for data in (b"one", b"two"):
        assert write(path, data) == path
        assert path.read_bytes() == data
    with pytest.raises(NotWritable, match="cannot be written"):
        write(path / "below", b"three")
