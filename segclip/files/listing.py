"""List the image files of a folder, with what was left out or could not be read, and why."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PurePath

from ..errors import BadImage
from . import outputs

# Pillow's name of each supported format, in the order of recognition, and its file suffixes.
FORMATS: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif"),
}
IMAGE_SUFFIXES: tuple[str, ...] = tuple(
    suffix for suffixes in FORMATS.values() for suffix in suffixes
)
_FORMAT_OF = {suffix: name for name, suffixes in FORMATS.items() for suffix in suffixes}
# Suffixes of unsupported image formats: a folder of them must not pass for an empty one.
_UNSUPPORTED = frozenset(
    (
        ".3fr",
        ".ai",
        ".arw",
        ".bpg",
        ".cr2",
        ".cr3",
        ".crw",
        ".cur",
        ".dcm",
        ".dcr",
        ".dds",
        ".djvu",
        ".dng",
        ".emf",
        ".eps",
        ".erf",
        ".exr",
        ".fit",
        ".fits",
        ".flif",
        ".hdr",
        ".heics",
        ".icns",
        ".ico",
        ".iiq",
        ".j2c",
        ".j2k",
        ".jls",
        ".jp2",
        ".jpf",
        ".jpm",
        ".jpx",
        ".jxl",
        ".jxr",
        ".k25",
        ".kdc",
        ".kra",
        ".mef",
        ".mos",
        ".mrw",
        ".nef",
        ".nrw",
        ".orf",
        ".pbm",
        ".pcx",
        ".pef",
        ".pfm",
        ".pgm",
        ".pict",
        ".pnm",
        ".ppm",
        ".psb",
        ".psd",
        ".qoi",
        ".raf",
        ".raw",
        ".rw2",
        ".rwl",
        ".sgi",
        ".sr2",
        ".srf",
        ".srw",
        ".svg",
        ".svgz",
        ".tga",
        ".wdp",
        ".wmf",
        ".x3f",
        ".xcf",
    )
)
# Folders of operating systems, network drives and archivers; names with a leading dot are hidden
# anyway.
_HIDDEN = frozenset(
    (
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "__macosx",
        "lost+found",
        "recycler",
        "system volume information",
    )
)
_OWN = "segclip-out"  # segclip's default output folder
_STATE = ".segclip"  # inside a folder that an export writes to
_LINKS = "links to folders are not followed"
_MAGIC = frozenset("*?[")
_MAX_NAMES = 3  # names per line of a report


@dataclass(frozen=True)
class Listing:
    """The contents of a folder: names relative to it, with "/", in the same order on any machine.

    images: the image files. left_out: images that cannot be read here or that segclip wrote, linked
    folders, and folders that segclip writes to, each with the reason. unreadable: subfolders that
    cannot be listed, such as a stale mount, each with the reason; their images are missing.
    """

    images: tuple[str, ...]
    left_out: Mapping[str, str]
    unreadable: Mapping[str, str]

    def report(self) -> tuple[str, ...]:
        """Return the omissions to report to the user, one line per reason."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(name)
        lines = [
            f"left out {_summary(names)}: {reason}" for reason, names in sorted(reasons.items())
        ]
        unreadable = (
            f"cannot read the folder {name}: {reason}" for name, reason in self.unreadable.items()
        )
        return (*lines, *unreadable)


def list_images(folder: str | Path, *, skip: Collection[str | Path] = ()) -> Listing:
    """List the image files under a folder, by suffix.

    Hidden files and folders, system folders and ``skip`` are skipped. Irregular files and broken
    links are listed; reading them reports the problem. skip: folders, such as an output folder
    inside the input. Raises BadImage when ``folder`` is missing or cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BadImage(f"{root}: no such folder")
    skipped = {os.path.realpath(path) for path in skip}
    found: list[str] = []
    left_out: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    pending = [""]
    while pending:
        base = pending.pop()
        own = outputs.written(root / base)
        try:
            for entry in _visible(os.path.join(root, base)):
                name = f"{base}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if os.path.realpath(entry.path) in skipped:
                        continue
                    if _is_own(entry):
                        left_out[name] = "segclip writes there"
                    else:
                        pending.append(f"{name}/")
                elif entry.is_symlink() and os.path.isdir(entry.path):
                    left_out[name] = _LINKS
                elif reason := _unsupported(entry.name):
                    left_out[name] = reason
                elif entry.name in own:
                    left_out[name] = "written by segclip"
                elif PurePath(entry.name).suffix.lower() in _FORMAT_OF:
                    found.append(name)
        except OSError as error:
            if not base:
                raise BadImage(f"{root}: cannot be read, {error.strerror or error}") from None
            unreadable[base.rstrip("/")] = error.strerror or str(error)
    return _listing(found, left_out, unreadable)


def walk(folder: Path) -> list[Path]:
    """Return the paths of ``list_images`` that are regular files."""
    paths = (folder / name for name in list_images(folder).images)
    return [path for path in paths if path.is_file()]


def match(folder: Path, pattern: Sequence[str]) -> Listing:
    """List the image files under a folder whose paths match a ``glob`` pattern, split at "/".

    Unlike in ``glob``, a link to a folder is followed only where the pattern names it literally: a
    wildcard match of a link to a parent folder would list every image repeatedly, and of several
    without end. Raises BadImage when ``folder`` cannot be read; a missing one is empty.
    """
    found, left_out, unreadable, visited = set(), {}, {}, set()
    pending = [("", tuple(pattern))]
    while pending:
        base, parts = state = pending.pop()
        if not parts or state in visited:
            continue
        visited.add(state)
        head, tail = parts[0], parts[1:]
        if not is_magic(head):
            if tail:
                pending.append((f"{base}{head}/", tail))
            elif os.path.lexists(folder / base / head):
                found.add(f"{base}{head}")
            continue
        if head == "**":
            pending.append((base, tail))
        try:
            for entry in _matching(os.path.join(folder, base), head):
                name = f"{base}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append((f"{name}/", parts if head == "**" else tail))
                elif not entry.is_dir():
                    found.update([name] if not tail else [])
                elif tail or head == "**":
                    left_out[name] = _LINKS
        except (FileNotFoundError, NotADirectoryError):
            continue  # a name after a wildcard, which some folders lack
        except OSError as error:
            if not base:
                raise BadImage(f"{folder}: cannot be read, {error.strerror or error}") from None
            unreadable[base.rstrip("/")] = error.strerror or str(error)
    return _listing([name for name in found if is_image(name)], left_out, unreadable)


def by_folder(name: str) -> list[str]:
    """Return the sort key of a name with "/": files of a folder stay together."""
    return name.split("/")


def is_magic(part: str) -> bool:
    """Return whether a part of a pattern contains wildcards."""
    return bool(_MAGIC & set(part))


def is_image(name: str | PurePath) -> bool:
    """Return whether a name, relative to the listed folder, is of a visible, readable image."""
    path = PurePath(name)
    hidden = any(_is_hidden(part) for part in path.parts)
    return not hidden and path.suffix.lower() in _FORMAT_OF and not _unsupported(path.name)


@cache
def is_readable(format: str) -> bool:
    """Return whether the installed packages can read a format of ``FORMATS``."""
    if format == "HEIF":
        return find_spec("pillow_heif") is not None
    if format == "AVIF":
        from PIL import features

        supported = features.check("avif") if "avif" in features.get_supported_modules() else False
        return bool(supported) or find_spec("pillow_avif") is not None
    return True


def needs(format: str) -> str:
    """Return what to install for a format that is not ``is_readable``."""
    return {
        "HEIF": "HEIC needs pillow-heif: pip install 'segclip[heic]'",
        "AVIF": "AVIF needs Pillow 11.3 or newer: pip install -U pillow",
    }.get(format, f"{format} cannot be read")


def _visible(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not _is_hidden(entry.name))


def _matching(folder: str, pattern: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            hidden = entry.name.startswith(".") and not pattern.startswith(".")
            if not hidden and (pattern == "**" or fnmatch(entry.name, pattern)):
                yield entry


def _is_hidden(name: str) -> bool:
    return (name.startswith(".") and name not in (".", "..")) or name.lower() in _HIDDEN


def _is_own(folder: os.DirEntry[str]) -> bool:
    return folder.name == _OWN or os.path.isdir(os.path.join(folder.path, _STATE))


def _unsupported(name: str) -> str:
    """Return why an image of this name is left out; "" for readable images and other files."""
    suffix = PurePath(name).suffix.lower()
    if suffix in _UNSUPPORTED:
        return f"{suffix} is not read; convert to JPEG, PNG or TIFF"
    format = _FORMAT_OF.get(suffix)
    return "" if format is None or is_readable(format) else needs(format)


def _summary(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{len(names)} ({', '.join(names[:_MAX_NAMES])}{more})"


def _listing(
    images: Iterable[str], left_out: Mapping[str, str], unreadable: Mapping[str, str]
) -> Listing:
    return Listing(
        tuple(sorted(images, key=by_folder)),
        {name: left_out[name] for name in sorted(left_out, key=by_folder)},
        {name: unreadable[name] for name in sorted(unreadable, key=by_folder)},
    )
