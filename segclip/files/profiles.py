"""Convert images with an embedded ICC colour profile to sRGB."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import PIL.Image
from PIL import ImageCms

_TOLERANCE = 1  # of 255; a profile that changes no value by more is equivalent to sRGB
_DATE = slice(24, 36)  # creation date in a profile's header, cleared for reproducible bytes
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC


class BadProfile(ValueError):
    """An unusable colour profile."""


def to_srgb(image: PIL.Image.Image, profile: bytes) -> PIL.Image.Image:
    """Convert an image of 8 bits per channel by its profile; return it unchanged if that is sRGB.

    Alpha is kept. Where mode and profile differ, such as grey with an RGB profile, the image is
    converted to RGB first. Raises BadProfile.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
        if mode is None or (mode == "CMYK") != (image.mode == "CMYK"):
            raise BadProfile(f"a {space} profile in an image of mode {image.mode}")
        colours = (
            image if image.mode == mode else image.convert("RGBA" if alpha else "RGB").convert(mode)
        )
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=_INTENT,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if mode != "CMYK" and _changes_nothing(transform, mode):
            return image
        converted = ImageCms.applyTransform(colours, transform)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError, AttributeError) as error:
        raise BadProfile(str(error)) from None
    if converted is None:  # only for in-place conversion
        return image
    if alpha:
        converted.putalpha(alpha)
    return converted


@cache
def srgb() -> bytes:
    """Return the sRGB profile, for embedding in images; its bytes are reproducible."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[_DATE] = bytes(12)
    return bytes(profile)


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a transform leaves a grid over the whole colour cube unchanged."""
    steps = np.linspace(0, 255, 16).astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(64, 64, 3)
    probe = PIL.Image.fromarray(cube).convert(mode)
    moved = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int)
    return bool(np.abs(moved - np.asarray(probe.convert("RGB"))).max() <= _TOLERANCE)
