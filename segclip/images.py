"""Read any picture as an upright RGB `Image`: the one place that decides orientation, colour order and depth.

Alpha is composited on white. 16-bit values keep their high byte. Of several frames the first is read, and a
logged warning tells.
"""

from __future__ import annotations

import io
import logging
import struct
import zlib
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
import PIL.Image
from PIL.Image import Transpose

from .errors import BadImage
from .listing import SUFFIXES as SUFFIXES
from .listing import walk as walk
from .types import Array, Image

Source: TypeAlias = "str | Path | bytes | PIL.Image.Image | Array | Image"

MAX_PIXELS = 100_000_000
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_ALLOWED = "JPEG, PNG, WebP, BMP, TIFF or GIF"
_ORIENTATION = 0x0112  # EXIF tags
_EXIF, _TAKEN, _DATE = 0x8769, 0x9003, 0x0132
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
# What Pillow's readers let out when bytes are damaged.
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

    An array is (H, W), (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4), and uint8, uint16 over its full range, bool, or
    float in [0, 1]. label: replaces the path in messages and in `Image.source`. max_pixels: checked against the header
    before anything is decoded. Raises BadImage, naming the file and the reason.
    """
    if isinstance(source, Image):
        return source if label is None else Image(source.pixels, label)
    if isinstance(source, (str, Path)):
        return _from_path(Path(source), label or str(source), max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        with io.BytesIO(source) as file:
            return _from_file(file, label or "image", max_pixels)
    if isinstance(source, PIL.Image.Image):
        return _from_picture(source, label or getattr(source, "filename", "") or "image", max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source, label or "image", max_pixels)
    raise BadImage(f"cannot read a {type(source).__name__} as an image; give a path, bytes, PIL image or NumPy array")


load_image = load  # its name among the public ones, where load is that of models


def taken(path: Path) -> float | None:
    """Give when a photo was taken by its EXIF, in s since 1970 as if by a clock at UTC; None where it does not say."""
    try:
        with path.open("rb") as file:
            picture = _open(file, file.read(16))
            if picture is None:
                return None
            exif = picture.getexif()
            said = exif.get_ifd(_EXIF).get(_TAKEN) or exif.get(_DATE)
        return datetime.strptime(str(said).strip("\0 "), "%Y:%m:%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    except _DAMAGE:  # among them ValueError, for what is no date
        return None


def _from_path(path: Path, label: str, max_pixels: int) -> Image:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise BadImage(f"{label}: no such file") from None
    except IsADirectoryError:
        raise BadImage(f"{label}: it is a folder, not an image") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadImage(f"{label}: cannot be opened, {reason}") from None
    with file:
        return _from_file(file, label, max_pixels)


def _from_file(file: IO[bytes], label: str, max_pixels: int) -> Image:
    try:
        prefix = file.read(16)
        picture = _open(file, prefix) if prefix else None
    except _DAMAGE as error:
        raise BadImage(f"{label}: its header is damaged or gives a zero size ({_reason(error)})") from None
    if not prefix:
        raise BadImage(f"{label}: the file is empty")
    if picture is None:
        raise BadImage(f"{label}: not a {_ALLOWED} image")
    return _from_picture(picture, label, max_pixels)


def _open(file: IO[bytes], prefix: bytes) -> PIL.Image.Image | None:
    # PIL.Image.open would warn or fail at Pillow's own pixel limit, a global that is not ours to change.
    PIL.Image.init()
    for format in _FORMATS:
        factory, accept = PIL.Image.OPEN[format]
        if accept is not None and accept(prefix) is True:
            file.seek(0)
            return factory(file, "")
    return None


def _from_picture(picture: PIL.Image.Image, label: str, max_pixels: int) -> Image:
    _check_size(picture.height, picture.width, label, max_pixels)
    try:
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format != "MPO":  # a phone's MPO holds a depth map or a preview beside the photo
            _log.warning("%s holds %d frames; only frame %d is used", label, frames, picture.tell() + 1)
        picture.load()
        upright = _upright(picture, label)
        if upright.mode[0] in "IF":  # 16-bit, 32-bit and float grey, which Pillow would clip
            return _from_array(_read_deep(upright, label), label, max_pixels)
        return _to_image(upright, label)
    except _DAMAGE as error:
        raise BadImage(f"{label}: truncated or damaged ({_reason(error)})") from None


def _upright(picture: PIL.Image.Image, label: str) -> PIL.Image.Image:
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except _DAMAGE as error:
        _log.warning("%s: unreadable EXIF, taken as upright (%s)", label, _reason(error))
        return picture
    turn = _UPRIGHT.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _read_deep(picture: PIL.Image.Image, label: str) -> Array:
    array = np.array(picture)
    if array.dtype.kind != "i":
        return array
    if array.min() < 0 or array.max() > 65535:  # mode I: 32-bit, and 16-bit PNG in older Pillow
        raise BadImage(f"{label}: 32-bit values from {array.min()} to {array.max()}; want 8 or 16 bits a channel")
    return array.astype(np.uint16)


def _to_image(picture: PIL.Image.Image, label: str) -> Image:
    if picture.has_transparency_data:
        canvas = PIL.Image.new("RGBA", picture.size, "white")
        canvas.alpha_composite(picture.convert("RGBA"))
        picture = canvas
    return Image(np.array(picture.convert("RGB")), label)


def _from_array(array: Array, label: str, max_pixels: int) -> Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise BadImage(f"{label}: want an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}")
    _check_size(array.shape[0], array.shape[1], label, max_pixels)
    pixels = _to_bytes(array, label)
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return Image(pixels.copy() if pixels is array else pixels, label)
    return _to_image(PIL.Image.fromarray(pixels), label)


def _to_bytes(array: Array, label: str) -> Array:
    kind = array.dtype.kind
    pixels: Array = array
    if kind == "u" and array.itemsize == 2:
        pixels = array >> 8
    elif kind == "b":
        pixels = array * np.uint8(255)
    elif kind == "f" and array.min() >= 0 and array.max() <= 1:
        pixels = np.rint(array * 255)
    elif array.dtype != np.uint8:
        span = f" from {array.min()} to {array.max()}" if kind in "iuf" else ""
        raise BadImage(f"{label}: want uint8, uint16, bool, or float in [0, 1], got {array.dtype}{span}")
    return pixels.astype(np.uint8, copy=False)


def _check_size(height: int, width: int, label: str, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise BadImage(
            f"{label}: {width} x {height} = {height * width:,} pixels is over the limit of {max_pixels:,}; "
            "shrink it, or raise max_pixels if you trust it"
        )


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
