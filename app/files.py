"""Pack results for download, and unpack uploaded zips."""

from __future__ import annotations

import io
import subprocess
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import segclip

from .plain import file_name

MOST_FILES = 2000
MOST_BYTES = 1_000_000_000  # of a zip's images, unpacked
_ROOT = Path(__file__).resolve().parent.parent
_STEP = 1 << 20
_SOURCES = (".py", ".js", ".css", ".html", ".toml", ".md", ".txt", "")

# what zipfile raises for damaged, encrypted and unknown archives
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
)


def pack(result: segclip.Result, formats: Sequence[str], *, zipped: bool = True) -> bytes:
    """Return a result in formats of ``segclip.PER_IMAGE``: a zip, or else the only file."""
    stem = Path(file_name(result.image.source)).stem
    with TemporaryDirectory() as folder:
        written = [
            path
            for name in formats
            for path in segclip.save(
                result, Path(folder) / f"{stem}.{segclip.PER_IMAGE[name]}", format=name
            )
        ]
        return zip_files(written, Path(folder)) if zipped else written[0].read_bytes()


def zip_files(paths: Sequence[Path], folder: Path) -> bytes:
    """Return a zip of files, named relative to ``folder``."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, path.relative_to(folder).as_posix())
    return file.getvalue()


def source(root: Path = _ROOT) -> bytes:
    """Return a zip of the running source code: the library and this app."""
    return zip_files(source_files(root), root)


@cache
def source_files(root: Path = _ROOT) -> tuple[Path, ...]:
    """List the source files of a folder: those that git tracks, or those of the installed wheel.

    Other files beside them stay private. Empty where neither git nor a wheel lists the files.
    """
    named = {"LICENSE", "NOTICE", "README.md", "pyproject.toml", "requirements.txt"}
    parts = {Path(segclip.__file__).parent.name, Path(__file__).parent.name}
    found = [
        name
        for name in _tracked(root) or _installed(root)
        if (name in named or name.partition("/")[0] in parts or ".dist-info/licenses/" in name)
        and PurePosixPath(name).suffix in _SOURCES
    ]
    paths = [root / name for name in sorted(found) if PurePosixPath(name).name != "secrets.toml"]
    return tuple(path for path in paths if path.is_file() and not path.is_symlink())


def _tracked(root: Path) -> list[str]:
    """List the files that git tracks in ``root``; empty without a clone or without git."""
    if not (root / ".git").exists():
        return []
    command = ["git", "--no-optional-locks", "-C", str(root), "ls-files", "-z"]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.decode("utf-8", "replace").split("\0")


def _installed(root: Path) -> list[str]:
    """List the files of the installed wheel, if it is the code that is running."""
    try:
        listed = distribution("segclip").files or []
    except PackageNotFoundError:
        return []
    return [
        file.as_posix() for file in listed if Path(str(file.locate())) == root / file.as_posix()
    ]


def unpack(data: bytes, folder: Path, *, most: int = MOST_BYTES) -> int:
    """Unpack at most ``most`` bytes of a zip's images into ``folder``; return the image count.

    Raises BadImage.
    """
    count, left, names = 0, min(most, MOST_BYTES), set[str]()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                name = _name(entry.filename)
                if entry.is_dir() or name is None:
                    continue
                count += 1
                if count > MOST_FILES:
                    raise segclip.BadImage(f"the zip holds more than {MOST_FILES} images; split it")
                if (folded := _folded(name)) in names:
                    raise segclip.BadImage(
                        f"the zip holds {str(name)!r} twice; name each image once"
                    )
                names.add(folded)
                left = _extract(archive, entry, folder / name, left)
                if left < 0:
                    limit = min(most, MOST_BYTES) // 1_000_000
                    raise segclip.BadImage(f"the zip's images are more than {limit} MB; split it")
    except _UNREADABLE as error:
        raise segclip.BadImage(f"the zip cannot be read: {error}") from None
    except OSError as error:  # a full disk is not the zip's fault, a name too long is
        raise segclip.BadImage(f"the zip cannot be unpacked: {error.strerror or error}") from None
    if not count:
        raise segclip.BadImage(f"the zip holds no images ({', '.join(segclip.IMAGE_SUFFIXES)})")
    return count


def _name(given: str) -> PurePosixPath | None:
    """Return an image's path inside the folder; None for other files and paths outside it."""
    path = PurePosixPath(given.replace("\\", "/"))
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    if (
        path.suffix.lower() not in segclip.IMAGE_SUFFIXES
        or path.is_absolute()
        or hidden
        or ":" in given
        or "\0" in given
    ):
        return None
    return path


def _folded(name: PurePosixPath) -> str:
    """Return a form that is equal for names which some file system treats as the same."""
    return unicodedata.normalize("NFC", str(name)).casefold()


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Extract one file and return how many bytes are left of ``left``.

    Bytes are counted as they are unpacked, for the zip's own sizes may be false. A negative result
    means that there were too many, and that the file is incomplete.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("wb") as file:
        while part := source.read(_STEP):
            left -= len(part)
            if left < 0:
                break
            file.write(part)
    return left
