"""Fuzz: mutated images of every format are read or refused as BadImage, soon and within bounded
memory.

SEGCLIP_FUZZ_EXAMPLES says how many are tried, SEGCLIP_FUZZ_SEED from which seed on; one that fails
is named by its own seed, with which SEGCLIP_FUZZ_EXAMPLES=1 tries it alone.
"""

from __future__ import annotations

import io
import logging
import os
import resource
import warnings
from collections.abc import Callable
from functools import cache
from time import monotonic
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from segclip import images
from segclip.errors import BadImage
from segclip.files import listing, profiles

EXAMPLES = int(os.environ.get("SEGCLIP_FUZZ_EXAMPLES", "200"))
SEED = int(os.environ.get("SEGCLIP_FUZZ_SEED", "17"))
SECONDS = 60.0  # the longest that one image may take
GROWTH = 1 << 30  # bytes by which memory may grow in all
MOST = 4_000_000  # pixels
_EXTREMES = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\x01",
    b"\xff\xff\xff\x7f",
    b"\0\0\x80\0",
)


def _encode(format: str, mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 33, 4), dtype=np.uint8)
    pixels[4:20, 5:25] = 200
    image = PIL.Image.fromarray(pixels).convert("RGB" if mode != "RGBA" else mode).convert(mode)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@cache
def sound() -> tuple[bytes, ...]:
    """Encode an image in every format that is read, and in their commoner kinds."""
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2020:01:02 03:04:05"
    more: dict[str, Any] = {
        "save_all": True,
        "append_images": [PIL.Image.new("RGB", (33, 24), "red")] * 2,
    }
    found = [
        _encode("JPEG", exif=exif),
        _encode("JPEG", "CMYK"),
        _encode("JPEG", progressive=True),
        _encode("JPEG", icc_profile=profiles.srgb()),
        _encode("PNG"),
        _encode("PNG", "RGBA"),
        _encode("PNG", "P"),
        _encode("PNG", "1"),
        _encode("PNG", icc_profile=profiles.srgb(), exif=exif),
        _encode("PNG", **more),
        _encode("WEBP"),
        _encode("WEBP", "RGBA", lossless=True, exif=exif),
        _encode("WEBP", **more),
        _encode("BMP"),
        _encode("BMP", "P"),
        _encode("TIFF"),
        _encode("TIFF", "CMYK"),
        _encode("TIFF", **more),
        _encode("GIF", "P"),
        _encode("GIF", **more),
        _encode("MPO", **more),
    ]
    found += [
        _encode("TIFF", compression=kind)
        for kind in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    ]
    deep = np.random.default_rng(0).integers(0, 4096, (24, 33, 3)).astype(np.uint16)
    found += [
        cv2.imencode(kind, part)[1].tobytes()
        for kind in (".png", ".tif")
        for part in (deep, deep[..., 0])
    ]
    found += [_encode("AVIF", exif=exif)] if listing.is_readable("AVIF") else []
    if listing.is_readable("HEIF"):
        import pillow_heif

        file = io.BytesIO()
        pillow_heif.from_pillow(PIL.Image.new("RGB", (64, 48), "red")).save(file)
        found.append(file.getvalue())
    return tuple(found)


def _flip(data: bytearray, random: np.random.Generator) -> None:
    for place in random.integers(0, len(data), random.integers(1, 20)):
        data[place] = random.integers(256)


def _write_extreme(data: bytearray, random: np.random.Generator) -> None:
    place = int(random.integers(0, min(len(data), 300)))
    data[place : place + 4] = _EXTREMES[random.integers(len(_EXTREMES))]


def _cut(data: bytearray, random: np.random.Generator) -> None:
    del data[int(random.integers(0, len(data))) :]


def _remove(data: bytearray, random: np.random.Generator) -> None:
    place = int(random.integers(0, len(data)))
    del data[place : place + int(random.integers(1, 50))]


def _repeat(data: bytearray, random: np.random.Generator) -> None:
    start, place = (int(v) for v in random.integers(0, len(data), 2))
    data[place:place] = data[start : start + int(random.integers(1, 200))] * int(
        random.integers(1, 20)
    )


def _splice(data: bytearray, random: np.random.Generator) -> None:
    other = sound()[random.integers(len(sound()))]
    data[int(random.integers(8, len(data) + 8)) :] = other[int(random.integers(0, len(other))) :]


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (
    _flip, _flip, _write_extreme, _write_extreme, _cut, _remove, _repeat, _splice,
)  # fmt: skip


def mutated(seed: int) -> bytes:
    """Make the image of a seed."""
    random = np.random.default_rng(seed)
    data = bytearray(sound()[random.integers(len(sound()))])
    for _ in range(random.integers(1, 4)):
        if data:
            MUTATIONS[random.integers(len(MUTATIONS))](data, random)
    return bytes(data)


def test_sound_images_are_read() -> None:
    for data in sound():
        assert images.load(data, max_pixels=MOST).size[0] >= 24


@pytest.mark.timeout(6 * 3600)
def test_mutated_images_are_read_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    print(  # noqa: T201
        f"seeds {SEED} to {SEED + EXAMPLES - 1}: SEGCLIP_FUZZ_SEED={SEED} "
        f"SEGCLIP_FUZZ_EXAMPLES={EXAMPLES}"
    )
    caplog.set_level(logging.CRITICAL, logger="segclip")
    caplog.set_level(logging.CRITICAL, logger="PIL")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    wrong = []
    for seed in range(SEED, SEED + EXAMPLES):
        data, start = mutated(seed), monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = images.load(data, max_pixels=MOST)
            if image.pixels.size > 3 * MOST:
                wrong.append((seed, f"{image.size} is over the limit"))
        except BadImage as error:
            if "\n" in str(error):
                wrong.append((seed, f"several lines: {error}"))
        except BaseException as error:  # whatever else it is, its seed is wanted
            wrong.append((seed, f"{type(error).__name__}: {error}"))
        if monotonic() - start > SECONDS:
            wrong.append((seed, f"took {monotonic() - start:.0f} s"))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert not wrong, f"{len(wrong)} of {EXAMPLES} images, by seed: {wrong[:10]}"
    assert grown < GROWTH, f"memory grew by {grown / 1e6:.0f} MB"
