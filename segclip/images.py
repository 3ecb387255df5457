"""Read any image as an upright RGB `Image`: the one place for orientation, colour order and depth.

Alpha is composited on white, and colours are converted to sRGB. 16-bit values keep the high byte of
the bits in use. Of several frames only the first is read. A warning is logged when an image loses
frames or bits, or has an unusable colour profile or EXIF.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TypeAlias

import cv2
import numpy as np
import PIL.Image
from PIL.Image import Transpose

from .errors import BadImage, one_line
from .files import listing, profiles, regular
from .question import MAX_PIXELS
from .registry import looks_like_address
from .types import Array, Image

Source: TypeAlias = "str | Path | bytes | PIL.Image.Image | Array | Image"

_ALLOWED = "JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC"
_HEADER = 64  # bytes read to recognise a format
_READ_WHOLE = ("WEBP", "AVIF", "HEIF")  # formats that Pillow reads into memory whole
_LARGEST = 1 << 30  # maximum bytes of such a file
_UNCOUNTED = ("TIFF", "GIF")  # formats whose frames can only be counted by reading them all
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIF"
    ),
}
_ORIENTATION = 0x0112  # EXIF tags
_EXIF, _TAKEN, _DATE = 0x8769, 0x9003, 0x0132
_BITS = 258  # TIFF tag
_USED_BITS = (8, 10, 12, 14, 16)  # of 16, as cameras and scanners use them
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
# Exceptions of Pillow's readers on damaged data.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    MemoryError,
    AssertionError,
    struct.error,
    zlib.error,
    PIL.Image.DecompressionBombError,
)
_log = logging.getLogger(__name__)


def load(source: Source, *, label: str | None = None, max_pixels: int = MAX_PIXELS) -> Image:
    """Read a path, encoded bytes, PIL image or array as an upright RGB image.

    An array is (H, W), (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4), and uint8, uint16 of any number
    of bits, bool, or float in [0, 1]. label: replaces the path in messages and in `Image.source`.
    max_pixels: checked against the header before anything is decoded. Raises BadImage, which names
    the file and the reason.
    """
    if isinstance(source, Image):
        return source if label is None else Image(source.pixels, label)
    if isinstance(source, (str, Path)):
        label = label or str(source)
        with open_regular(Path(source), label) as file:
            return _from_file(file, label, max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_file(io.BytesIO(source), label or "image", max_pixels)
    if isinstance(source, PIL.Image.Image):
        return _from_pil(source, label or getattr(source, "filename", "") or "image", max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source, label or "image", max_pixels)
    raise BadImage(
        f"cannot read a {type(source).__name__} as an image; give a path, bytes, PIL image or "
        "NumPy array"
    )


load_image = load  # the public name; segclip.load loads models


def taken(path: Path) -> float | None:
    """Return when a photo was taken, from its EXIF: s since 1970, read as UTC; None if unknown."""
    try:
        with open_regular(path) as file:
            pil = _open(file, file.read(_HEADER))
            if pil is None:
                return None
            exif = pil.getexif()
            value = exif.get_ifd(_EXIF).get(_TAKEN) or exif.get(_DATE)
        return (
            datetime.strptime(str(value).strip("\0 "), "%Y:%m:%d %H:%M:%S")
            .replace(tzinfo=UTC)
            .timestamp()
        )
    except (BadImage, *_DAMAGE):  # _DAMAGE includes ValueError, for an invalid date
        return None


def open_regular(path: Path, label: str = "") -> IO[bytes]:
    """Open a regular file for reading; refuse pipes, sockets and devices, which may block.

    label: replaces the path in messages. Raises BadImage.
    """
    label = label or str(path)
    try:
        return regular.open_file(path)
    except FileNotFoundError:
        if looks_like_address(label):
            raise BadImage(f"{label}: a web address, not a file; download it first") from None
        raise BadImage(f"{label}: no such file") from None
    except regular.NotRegular:
        if path.is_dir():
            raise BadImage(f"{label}: it is a folder, not an image") from None
        raise BadImage(
            f"{label}: a pipe, socket or device, not an image file; save the image as a file first"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise BadImage(f"{label}: cannot be opened, {reason}") from None


def _from_file(file: IO[bytes], label: str, max_pixels: int) -> Image:
    try:
        prefix = file.read(_HEADER)
        pil = _open(file, prefix) if prefix else None
    except _DAMAGE as error:
        raise BadImage(
            f"{label}: its header is damaged or gives a zero size ({one_line(error)})"
        ) from None
    except BadImage as error:
        raise BadImage(f"{label}: {error}") from None
    if not prefix:
        raise BadImage(f"{label}: the file is empty")
    if pil is None:
        raise BadImage(f"{label}: not a {_ALLOWED} image")
    return _from_pil(pil, label, max_pixels)


def _open(file: IO[bytes], prefix: bytes) -> PIL.Image.Image | None:
    """Open a file of one of ``listing.FORMATS``, else return None.

    Raises BadImage for a format that cannot be read on this machine, and any of _DAMAGE.
    """
    format = _format_of(prefix)
    if format is None:
        return None
    if not listing.is_readable(format):
        raise BadImage(listing.needs(format))
    size = file.seek(0, os.SEEK_END)
    if format in _READ_WHOLE and size > _LARGEST:
        raise BadImage(f"{size:,} bytes are over the limit of {_LARGEST:,} for {format}")
    file.seek(0)
    if format == "HEIF":
        import pillow_heif

        opened: PIL.Image.Image = pillow_heif.HeifImageFile(file, "")
        return opened
    # PIL.Image.open would warn or fail at Pillow's own pixel limit, a global we must not change.
    return PIL.Image.OPEN[format][0](file, "")


def _format_of(prefix: bytes) -> str | None:
    if prefix[4:8] == b"ftyp":  # ISO 14496-12: major brand, version, then compatible brands
        end = int.from_bytes(prefix[:4], "big")
        brands = (prefix[start : start + 4] for start in (8, *range(16, min(end, len(prefix)), 4)))
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
    PIL.Image.init()
    for format in listing.FORMATS:
        _, accept = PIL.Image.OPEN.get(format, (None, None))
        if accept is not None and accept(prefix) is True:
            return format
    return None


def _from_pil(pil: PIL.Image.Image, label: str, max_pixels: int) -> Image:
    _check_size(pil.height, pil.width, label, max_pixels)
    try:
        file = _file_of_deep_colours(pil)
        pil.load()
        deep = _read_deep(pil, file, label)
        flat = pil if deep is None else PIL.Image.fromarray(_to_bytes(deep, label))
        image = _to_image(_upright(_to_srgb(flat, pil, label), pil, label), label)
        _warn_of_frames(pil, label)
    except _DAMAGE as error:
        raise BadImage(f"{label}: truncated or damaged ({one_line(error)})") from None
    return image


def _warn_of_frames(pil: PIL.Image.Image, label: str) -> None:
    """Warn if an image holds more frames than the one that was read."""
    frame = pil.tell()
    several = bool(frame)
    if pil.format in _UNCOUNTED and not several:
        try:
            pil.seek(1)
            several = True
            pil.seek(0)
        except _DAMAGE:
            pass
    elif pil.format != "MPO":  # the extra frames of a phone's MPO are a depth map or preview
        several = several or getattr(pil, "n_frames", 1) > 1
    if several:
        _log.warning("%s holds several frames; only frame %d is used", label, frame + 1)


def _to_srgb(flat: PIL.Image.Image, pil: PIL.Image.Image, label: str) -> PIL.Image.Image:
    profile = pil.info.get("icc_profile")
    if not profile:
        return flat
    try:
        return profiles.to_srgb(flat, profile)
    except profiles.BadProfile as error:
        _log.warning("%s: its colour profile cannot be used, taken as sRGB (%s)", label, error)
        return flat


def _upright(flat: PIL.Image.Image, pil: PIL.Image.Image, label: str) -> PIL.Image.Image:
    """Turn the pixels upright by the EXIF of their source."""
    try:
        orientation = pil.getexif().get(_ORIENTATION, 1)
    except _DAMAGE as error:
        _log.warning("%s: unreadable EXIF, taken as upright (%s)", label, one_line(error))
        return flat
    turn = _UPRIGHT.get(orientation)
    return flat if turn is None else flat.transpose(turn)


def _file_of_deep_colours(pil: PIL.Image.Image) -> bytes | None:
    """Return the file of a 16-bit colour image, whose low bytes Pillow drops; else None."""
    tile = pil.tile[0] if getattr(pil, "tile", None) else None  # type: ignore[attr-defined]
    bits = getattr(pil, "tag_v2", {}).get(_BITS, ())
    deep = pil.format == "PNG" and tile is not None and str(tile[3]).endswith(";16B")
    deep = deep or (pil.format == "TIFF" and len(bits) > 2 and set(bits) == {16})
    file = getattr(pil, "fp", None)
    if not deep or pil.mode[0] in "IF" or file is None or file.seek(0, os.SEEK_END) > _LARGEST:
        return None
    file.seek(0)
    data: bytes = file.read()
    return data


def _read_deep(pil: PIL.Image.Image, file: bytes | None, label: str) -> Array | None:
    """Read more than 8 bits per channel: (H, W), RGB or RGBA; None for an 8-bit image."""
    if pil.mode[0] in "IF":  # 16-bit, 32-bit and float grey, which Pillow would clip
        array = np.array(pil)
        if array.dtype.kind != "i":
            return array
        if array.min() < 0 or array.max() > 65535:  # mode I: 32-bit, and 16-bit PNG in older Pillow
            raise BadImage(
                f"{label}: 32-bit values from {array.min()} to {array.max()}; want 8 or 16 bits "
                "per channel"
            )
        return array.astype(np.uint16)
    # values of more than 14 bits are taken as 16, whose high bytes Pillow has read already
    high = np.asarray(pil.convert("RGB")) if file else None
    if file is None or high is None or int(high.max()).bit_length() + 8 > _USED_BITS[-2]:
        return None
    deep = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if (
        deep is None
        or deep.dtype != np.uint16
        or deep.shape[:2] != high.shape[:2]
        or deep.ndim != 3
    ):
        return None
    colours = [2, 1, 0, 3][: deep.shape[2]]
    return np.ascontiguousarray(deep[..., colours])


def _to_image(pil: PIL.Image.Image, label: str) -> Image:
    if pil.has_transparency_data:
        canvas = PIL.Image.new("RGBA", pil.size, "white")
        canvas.alpha_composite(pil.convert("RGBA"))
        pil = canvas
    return Image(np.array(pil.convert("RGB")), label)


def _from_array(array: Array, label: str, max_pixels: int) -> Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if (
        array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in (3, 4))
        or 0 in array.shape
    ):
        raise BadImage(
            f"{label}: want an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}"
        )
    _check_size(array.shape[0], array.shape[1], label, max_pixels)
    pixels = _to_bytes(array, label)
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return Image(pixels.copy() if pixels is array else pixels, label)
    return _to_image(PIL.Image.fromarray(pixels), label)


def _to_bytes(array: Array, label: str) -> Array:
    kind = array.dtype.kind
    pixels: Array = array
    if kind == "u" and array.itemsize == 2:
        pixels = _narrow(array, label)
    elif kind == "b":
        pixels = array * np.uint8(255)
    elif kind == "f" and array.min() >= 0 and array.max() <= 1:
        pixels = np.rint(array * 255)
    elif array.dtype != np.uint8:
        span = f" from {array.min()} to {array.max()}" if kind in "iuf" else ""
        raise BadImage(
            f"{label}: want uint8, uint16, bool, or float in [0, 1], got {array.dtype}{span}"
        )
    return pixels.astype(np.uint8, copy=False)


def _narrow(array: Array, label: str) -> Array:
    """Keep the highest 8 bits in use, so that files of 12-bit cameras are not black."""
    colours = array if array.ndim == 2 else array[..., :3]
    highest = int(colours.max(initial=0))
    bits = next(bits for bits in _USED_BITS if highest < 1 << bits)
    if bits == _USED_BITS[-1]:
        return array >> 8
    _log.warning("%s: 16-bit values up to %d, read as values of %d bits", label, highest, bits)
    narrow = colours >> (bits - 8)
    if array.shape == colours.shape:
        return narrow
    alpha = array[..., 3:]
    return np.concatenate([narrow, alpha >> (8 if alpha.max() >= 1 << bits else bits - 8)], axis=2)


def _check_size(height: int, width: int, label: str, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise BadImage(
            f"{label}: {width} x {height} = {height * width:,} pixels is over the limit of "
            f"{max_pixels:,}; shrink it, or raise max_pixels if you trust it"
        )
