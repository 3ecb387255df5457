"""Pack results into files a browser downloads, and unpack what it uploads."""

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
MOST_BYTES = 1_000_000_000  # of a zip's pictures, unpacked
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
    """Write a result in some formats of ``segclip.PER_IMAGE``: a zip, or the one file there is."""
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
    """Pack files under their names inside ``folder``."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, path.relative_to(folder).as_posix())
    return file.getvalue()


def source() -> bytes:
    """Pack the source of what is running: the library and these pages."""
    return zip_files(source_files(), _ROOT)


@cache
def source_files() -> tuple[Path, ...]:
    """List the source of what is running: only files that git tracks, or those of the installed
    wheel.

    What else lies beside them is nobody's business; none where neither says which files they are.
    """
    named = {"LICENSE", "NOTICE", "README.md", "pyproject.toml", "requirements.txt"}
    parts = {Path(segclip.__file__).parent.name, Path(__file__).parent.name}
    found = [
        name
        for name in _tracked(_ROOT) or _installed(_ROOT)
        if (name in named or name.partition("/")[0] in parts or ".dist-info/licenses/" in name)
        and PurePosixPath(name).suffix in _SOURCES
    ]
    paths = [_ROOT / name for name in sorted(found) if PurePosixPath(name).name != "secrets.toml"]
    return tuple(path for path in paths if path.is_file() and not path.is_symlink())


def _tracked(root: Path) -> list[str]:
    """Name the files git tracks in ``root``; none where that is no clone, or git is not there."""
    if not (root / ".git").exists():
        return []
    command = ["git", "--no-optional-locks", "-C", str(root), "ls-files", "-z"]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.decode("utf-8", "replace").split("\0")


def _installed(root: Path) -> list[str]:
    """Name the files of the wheel, where it is what is running."""
    try:
        listed = distribution("segclip").files or []
    except PackageNotFoundError:
        return []
    return [
        file.as_posix() for file in listed if Path(str(file.locate())) == root / file.as_posix()
    ]


def unpack(data: bytes, folder: Path, *, most: int = MOST_BYTES) -> int:
    """Unpack the images of a zip into ``folder``, ``most`` bytes of them: how many images. Raises
    BadImage.
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
                    raise segclip.BadImage(
                        f"the zip holds more than {MOST_FILES} pictures; split it"
                    )
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
        raise segclip.BadImage(f"the zip holds no pictures ({', '.join(segclip.IMAGE_SUFFIXES)})")
    return count


def _name(given: str) -> PurePosixPath | None:
    """Give a picture's name inside the folder; None for what is no picture or would lie outside."""
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
    """Return what names have in common that one file system or another takes for the same."""
    return unicodedata.normalize("NFC", str(name)).casefold()


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Write one file, counting its bytes as they come, whatever the zip says of them: how many more
    may come.

    Below 0 it was too many, and the file is not whole.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("wb") as file:
        while part := source.read(_STEP):
            left -= len(part)
            if left < 0:
                break
            file.write(part)
    return left
