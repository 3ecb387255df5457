"""List the image files of a folder: which files are images, what is left out and why, what cannot
be read.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PurePath

from ..errors import BadImage
from . import outputs

# Pillow's name of each format that is read, in the order it is recognised, and the endings of its
# files.
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
# Images of formats that are not read: a folder of them must not pass for an empty one.
_FOREIGN = frozenset(
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
# Folders kept by operating systems, network drives and archivers; names that begin with a dot are
# hidden anyway.
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
_OWN = "segclip-out"  # where segclip writes unless another folder is named
_STATE = ".segclip"  # inside a folder that an export writes to
_LINKS = "links to folders are not followed"
_MAGIC = frozenset("*?[")
_NAMED = 3  # names that a line of a report holds


@dataclass(frozen=True)
class Listing:
    """Hold what a folder holds: names relative to it, with "/", in an order that is the same on
    every machine.

    images: the image files. left_out: images that cannot be read here or that segclip wrote, linked
    folders, and folders that segclip writes to, each with the reason. unreadable: sub-folders that
    cannot be listed, such as a stale mount, each with the reason; ``images`` may lack what is in
    them.
    """

    images: tuple[str, ...]
    left_out: Mapping[str, str]
    unreadable: Mapping[str, str]

    def report(self) -> tuple[str, ...]:
        """Return what a person should know of what is not listed, a line a reason; empty when
        nothing is missing.
        """
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(name)
        lines = [f"left out {_some(names)}: {reason}" for reason, names in sorted(reasons.items())]
        unreadable = (
            f"cannot read the folder {name}: {why}" for name, why in self.unreadable.items()
        )
        return (*lines, *unreadable)


def list_images(folder: str | Path, *, skip: Collection[str | Path] = ()) -> Listing:
    """List the image files under a folder, by suffix.

    Hidden files and folders, those of the system, and ``skip`` are passed over. A file that is no
    regular one, and a link that leads nowhere, are listed: reading them says what is wrong. skip:
    folders, such as an output inside the input. Raises BadImage when ``folder`` is not there or
    cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BadImage(f"{root}: no such folder")
    passed = {os.path.realpath(path) for path in skip}
    found: list[str] = []
    left_out: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    waiting = [""]
    while waiting:
        base = waiting.pop()
        own = outputs.written(root / base)
        try:
            for entry in _visible(os.path.join(root, base)):
                name = f"{base}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if os.path.realpath(entry.path) in passed:
                        continue
                    if _is_own(entry):
                        left_out[name] = "segclip writes there"
                    else:
                        waiting.append(f"{name}/")
                elif entry.is_symlink() and os.path.isdir(entry.path):
                    left_out[name] = _LINKS
                elif reason := _unread(entry.name):
                    left_out[name] = reason
                elif entry.name in own:
                    left_out[name] = "written by segclip"
                elif PurePath(entry.name).suffix.lower() in _FORMAT_OF:
                    found.append(name)
        except OSError as error:
            if not base:
                raise BadImage(f"{root}: cannot be read, {error.strerror or error}") from None
            unreadable[base.rstrip("/")] = error.strerror or str(error)
    return Listing(tuple(_sorted(found)), _in_order(left_out), _in_order(unreadable))


def walk(folder: Path) -> list[Path]:
    """List the regular image files under a folder that can be read: the paths of
    ``list_images``.
    """
    paths = (folder / name for name in list_images(folder).images)
    return [path for path in paths if path.is_file()]


def match(folder: Path, pattern: Sequence[str]) -> Listing:
    """List the image files under a folder whose path matches a pattern, a part a folder, as
    ``glob`` does.

    Unlike there, a link to a folder is followed where the pattern names it, and not where it
    matches: one that leads up would give every image again and again, and several, without end.
    Raises BadImage when ``folder`` cannot be read; one that is not there holds nothing.
    """
    found, left_out, unreadable, begun = set(), {}, {}, set()
    waiting = [("", tuple(pattern))]
    while waiting:
        base, parts = state = waiting.pop()
        if not parts or state in begun:
            continue
        begun.add(state)
        head, tail = parts[0], parts[1:]
        if not is_magic(head):
            if tail:
                waiting.append((f"{base}{head}/", tail))
            elif os.path.lexists(folder / base / head):
                found.add(f"{base}{head}")
            continue
        if head == "**":
            waiting.append((base, tail))
        try:
            for entry in _matching(os.path.join(folder, base), head):
                name = f"{base}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{name}/", parts if head == "**" else tail))
                elif not entry.is_dir():
                    found.update([name] if not tail else [])
                elif tail or head == "**":
                    left_out[name] = _LINKS
        except (
            FileNotFoundError,
            NotADirectoryError,
        ):  # a name after a pattern that some folders lack
            continue
        except OSError as error:
            if not base:
                raise BadImage(f"{folder}: cannot be read, {error.strerror or error}") from None
            unreadable[base.rstrip("/")] = error.strerror or str(error)
    images = [name for name in found if is_image(name)]
    return Listing(tuple(_sorted(images)), _in_order(left_out), _in_order(unreadable))


def is_magic(part: str) -> bool:
    """Decide whether a part of a pattern matches more than it names."""
    return bool(_MAGIC & set(part))


def is_image(name: str | PurePath) -> bool:
    """Decide by its name, relative to what is listed, whether a file is a visible image of a format
    that is read.
    """
    path = PurePath(name)
    hidden = any(_is_hidden(part) for part in path.parts)
    return not hidden and path.suffix.lower() in _FORMAT_OF and not _unread(path.name)


@cache
def is_readable(format: str) -> bool:
    """Find out whether a format of ``FORMATS`` can be read with what is installed."""
    if format == "HEIF":
        return find_spec("pillow_heif") is not None
    if format == "AVIF":
        from PIL import features

        supported = features.check("avif") if "avif" in features.get_supported_modules() else False
        return bool(supported) or find_spec("pillow_avif") is not None
    return True


def needs(format: str) -> str:
    """Say what is missing for a format that is not ``is_readable``."""
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


def _unread(name: str) -> str:
    """Say why an image of this name is left out; empty for one that is read, and for what is no
    image.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix in _FOREIGN:
        return f"{suffix} is not read; convert to JPEG, PNG or TIFF"
    format = _FORMAT_OF.get(suffix)
    return "" if format is None or is_readable(format) else needs(format)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} ({', '.join(names[:_NAMED])}{more})"


def _sorted(names: Collection[str]) -> list[str]:
    return sorted(names, key=lambda name: name.split("/"))


def _in_order(reasons: dict[str, str]) -> dict[str, str]:
    return {name: reasons[name] for name in _sorted(reasons)}
