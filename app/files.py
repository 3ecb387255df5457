"""Pack results into files a browser downloads, and unpack what it uploads."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import segclip

MOST_FILES = 2000
MOST_BYTES = 1_000_000_000  # of a zip's pictures, unpacked
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_STEP = 1 << 20

# what zipfile raises for damaged, encrypted and unknown archives
_UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError)


def pack(result: segclip.Result, formats: Sequence[str], *, zipped: bool = True) -> bytes:
    """Write a result in some formats of ``segclip.PER_IMAGE``: a zip, or the one file there is."""
    stem = Path(result.image.source).stem or "picture"
    with TemporaryDirectory() as folder:
        written = [
            path
            for name in formats
            for path in segclip.save(result, Path(folder) / f"{stem}.{segclip.PER_IMAGE[name]}", format=name)
        ]
        return zip_files(written, Path(folder)) if zipped else written[0].read_bytes()


def zip_files(paths: Sequence[Path], folder: Path) -> bytes:
    """Pack files under their names inside ``folder``."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, path.relative_to(folder).as_posix())
    return file.getvalue()


def source() -> bytes:
    """Pack the source of what is running: the library and these pages."""
    here, library = Path(__file__).parent, Path(segclip.__file__).parent
    root = here.parent
    named = [root / name for name in ("LICENSE", "NOTICE", "README.md", "pyproject.toml", "requirements.txt")]
    kinds = {".py", ".js", ".css", ".html", ".toml"}
    found = [path for folder in (library, here) for path in sorted(folder.rglob("*")) if path.suffix in kinds]
    return zip_files([path for path in (*named, *found) if path.is_file()], root)


def unpack(data: bytes, folder: Path) -> int:
    """Unpack the pictures of a zip into ``folder``, within the limits: how many. Raises BadImage."""
    count, left = 0, MOST_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                name = _name(entry.filename)
                if entry.is_dir() or name is None:
                    continue
                count += 1
                if count > MOST_FILES:
                    raise segclip.BadImage(f"the zip holds more than {MOST_FILES} pictures; split it")
                left = _extract(archive, entry, folder / name, left)
    except _UNREADABLE as error:
        raise segclip.BadImage(f"the zip cannot be read: {error}") from None
    except OSError as error:  # a full disk is not the zip's fault, a name too long is
        raise segclip.BadImage(f"the zip cannot be unpacked: {error.strerror or error}") from None
    if not count:
        raise segclip.BadImage(f"the zip holds no pictures ({', '.join(PICTURES)})")
    return count


def _name(given: str) -> PurePosixPath | None:
    """Give a picture's name inside the folder; None for what is no picture or would lie outside."""
    path = PurePosixPath(given.replace("\\", "/"))
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    if path.suffix.lower() not in PICTURES or path.is_absolute() or hidden or ":" in given or "\0" in given:
        return None
    return path


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Write one file, counting its bytes as they come, whatever the zip says of them: how many more may come."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("wb") as file:
        while part := source.read(_STEP):
            left -= len(part)
            if left < 0:
                raise segclip.BadImage(f"the zip's pictures are more than {MOST_BYTES // 1_000_000} MB; split it")
            file.write(part)
    return left
