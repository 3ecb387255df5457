"""Bring colours to sRGB from whatever colour profile (ICC) an image carries."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import PIL.Image
from PIL import ImageCms

_SAME = 1  # a profile that moves no colour further, of 255, is sRGB by another name
_DATE = slice(
    24, 36
)  # of a profile's making, in its header: without it the bytes are the same each time
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC


class BadProfile(ValueError):
    """Raise for a colour profile that cannot be used."""


def to_srgb(image: PIL.Image.Image, profile: bytes) -> PIL.Image.Image:
    """Convert an image of 8 bits a channel that carries a profile; return it as it is where the
    profile is sRGB.

    Alpha is kept. A grey image with a profile of RGB, and the like, is converted by way of RGB.
    Raises BadProfile.
    """
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = given.profile.xcolor_space.strip()
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
        if mode is None or (mode == "CMYK") != (image.mode == "CMYK"):
            raise BadProfile(f"a profile of {space} in an image of {image.mode}")
        colours = (
            image if image.mode == mode else image.convert("RGBA" if alpha else "RGB").convert(mode)
        )
        transform = ImageCms.buildTransform(
            given,
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
    if converted is None:  # only where it was to be converted in place
        return image
    if alpha:
        converted.putalpha(alpha)
    return converted


@cache
def srgb() -> bytes:
    """Return the sRGB profile, for images that are to carry one: the same bytes each time."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[_DATE] = bytes(12)
    return bytes(profile)


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Try a transform on colours of the whole cube."""
    steps = np.linspace(0, 255, 16).astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(64, 64, 3)
    probe = PIL.Image.fromarray(cube).convert(mode)
    moved = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int)
    return bool(np.abs(moved - np.asarray(probe.convert("RGB"))).max() <= _SAME)
