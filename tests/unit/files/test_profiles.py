"""Images with a colour profile are converted to sRGB."""

from __future__ import annotations

import io
import logging
import struct

import numpy as np
import PIL.Image
import pytest
from PIL import ImageCms

from segclip import images
from segclip.files import profiles
from segclip.types import Array
from tests.encoded import encode, quarters


def wide_profile() -> bytes:
    """Make the profile of a space with Adobe RGB's primaries and gamma."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(
            struct.pack(">i", round(value * 65536)) for value in values
        )

    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(2.19921875 * 256))
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + b"\0" * 78
    tags = {b"desc": name + b"\0" * (-len(name) % 4), b"wtpt": xyz(0.95045, 1, 1.08905)}
    tags |= {b"rXYZ": xyz(0.60974, 0.31111, 0.01947), b"gXYZ": xyz(0.20528, 0.62567, 0.06087)}
    tags |= {
        b"bXYZ": xyz(0.14919, 0.06322, 0.74457),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    body, table = b"", struct.pack(">I", len(tags))
    for key, data in tags.items():
        table += key + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    head = struct.pack(
        ">I4sI4s4s4s", 128 + len(table) + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ "
    )
    head += bytes(12) + b"acsp" + bytes(28) + xyz(0.9642, 1, 0.8249)[8:] + bytes(48)
    return head + table + body


def through(profile: bytes, colour: tuple[int, int, int]) -> Array:
    """Convert a colour from the profile to sRGB, with Pillow directly."""
    pixel = PIL.Image.new("RGB", (1, 1), colour)
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    done = ImageCms.profileToProfile(
        pixel,
        source,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    assert done is not None
    return np.asarray(done)[0, 0].astype(int)


class TestColourProfiles:
    """Fault 17.21: colours of Adobe RGB, Display P3 and others were read as if they were sRGB."""

    @pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
    def test_a_wide_profile_is_converted(self, format: str) -> None:
        options = (
            {"lossless": True}
            if format == "WEBP"
            else {}
            if format in ("PNG", "TIFF")
            else {"quality": 100}
        )
        flat = PIL.Image.new("RGB", (16, 16), (200, 120, 60))
        data = encode(flat, format, icc_profile=wide_profile(), **options)
        expected = through(wide_profile(), (200, 120, 60))
        assert np.abs(np.subtract(expected, (200, 120, 60))).max() > 10
        got = images.load(data).pixels[8, 8].astype(int)
        assert np.abs(got - expected).max() <= (2 if format in ("PNG", "TIFF", "WEBP") else 6)
        assert np.abs(images.load(PIL.Image.open(io.BytesIO(data))).pixels[8, 8] - got).max() == 0

    def test_alpha_palette_grey_and_orientation_survive(self) -> None:
        red = through(wide_profile(), (200, 0, 0))
        pixels = np.zeros((4, 4, 4), np.uint8)
        pixels[:2] = (200, 0, 0, 255)
        got = images.load(
            encode(PIL.Image.fromarray(pixels), "PNG", icc_profile=wide_profile())
        ).pixels
        assert (got[:2] == red).all()
        assert (got[2:] == 255).all()
        palette = PIL.Image.new("RGB", (4, 4), (200, 0, 0)).quantize(4)
        got = images.load(encode(palette, "PNG", icc_profile=wide_profile())).pixels
        assert np.abs(got.astype(int) - red).max() <= 1
        got = images.load(
            encode(PIL.Image.new("L", (4, 4), 100), "PNG", icc_profile=wide_profile())
        ).pixels
        assert len(np.unique(got)) == 1

    def test_srgb_is_left_to_the_bit(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        data = encode(PIL.Image.fromarray(noise), "PNG", icc_profile=profiles.srgb())
        assert np.array_equal(images.load(data).pixels, noise)

    @pytest.mark.parametrize(
        "profile", [b"x", b"\0" * 500, wide_profile()[:200], wide_profile()[:-30] + b"\xff" * 30]
    )
    def test_a_bad_profile_does_not_lose_the_image(
        self, profile: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            pixels = images.load(
                encode(PIL.Image.fromarray(quarters()), "PNG", icc_profile=profile)
            ).pixels
        assert pixels.shape == (40, 60, 3)

    def test_a_profile_for_other_channels_is_reported(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        cmyk = PIL.Image.fromarray(quarters()).convert("CMYK")
        with caplog.at_level(logging.WARNING):
            images.load(encode(cmyk, "TIFF", icc_profile=wide_profile()))
        assert "its colour profile cannot be used" in caplog.text

    def test_srgb_is_the_same_bytes_each_time(self) -> None:
        before = profiles.srgb()
        profiles.srgb.cache_clear()
        assert profiles.srgb() == before
        assert not any(before[24:36])
