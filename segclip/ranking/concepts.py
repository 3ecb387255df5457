"""Teach by example: a concept is a few embeddings of what to find and what not, in one small file.

Its text is its name after an "@", and stands wherever a text does: "@bolt", "the left @bolt".
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from .. import images
from ..errors import BadIndex, BadPrompt, NotWritable, UnknownName, Unsupported, one_line
from ..files import atomic, regular
from ..types import Array, Boxes, Everything, Points
from ..weights import cache
from .positions import nouns

MARK = "@"
SUFFIX = ".concept"
THUMBNAIL = 96  # px, side of an example's square thumbnail
FILES = "SEGCLIP_CONCEPT_FILES"  # environment variable; "0" leaves only the concepts folder
# share of the best example's mean cosine with the others; chosen on drawn scenes, where every
# fourth click cut out something else
_OUTLIER = 0.5
_MAX_BYTES = 64 << 20  # of a concept's file
_NAME = re.compile(r"\w[\w.-]{0,63}")
_MARKED = re.compile(r"(?:(?:the|an?) )?@(.*)", re.IGNORECASE)
_VERSION = 1

Place: TypeAlias = Points | Boxes | Everything | Path | Array


@dataclass(frozen=True, eq=False)
class Example:
    """An object given as an example: an image, and where in it the object is.

    source: as ``load_image`` takes it. place: one click, one box, a mask, bool (H, W) or the path
    of an image that is black outside it, or ``Everything`` for the whole image. Raises BadPrompt.
    """

    source: images.Source
    place: Any = field(default_factory=Everything)

    def __post_init__(self) -> None:
        place: Any = Path(self.place) if isinstance(self.place, str) else self.place
        object.__setattr__(self, "place", place)
        click = isinstance(place, Points) and _is_one_click(place)
        box = isinstance(place, Boxes) and len(place.xyxy) == 1
        mask = isinstance(place, Path) or (isinstance(place, np.ndarray) and place.ndim == 2)
        if not (click or box or mask or isinstance(place, Everything)):
            raise BadPrompt(
                "an example is one click, one box, a mask (H, W) or a whole image; for several "
                "objects give several examples"
            )

    @classmethod
    def parse(cls, text: str) -> Example:
        """Read FILE, FILE@X,Y, FILE@X1,Y1,X2,Y2 or FILE@MASK, pixels. Raises BadPrompt."""
        file, mark, where = text.rpartition("@")
        if not mark or Path(text).is_file():
            return cls(_existing(text))
        source = _existing(file)
        numbers = _numbers(where)
        if len(numbers) == 2:
            return cls(source, Points([numbers]))
        if len(numbers) == 4:
            return cls(source, Boxes([numbers]))
        if Path(where).is_file():
            return cls(source, Path(where))
        raise BadPrompt(
            f"the example {text!r} has no place after the @; give a click {file}@120,80, a box "
            f"{file}@100,60,140,95, a file with its mask {file}@mask.png, or the image alone"
        )

    def __str__(self) -> str:
        """Return the text that ``parse`` reads, with absolute paths."""
        file = self.source if isinstance(self.source, str | Path) else None
        source = str(Path(file).absolute()) if file else "image"
        if isinstance(self.place, Points | Boxes):
            places = self.place.xy if isinstance(self.place, Points) else self.place.xyxy
            return f"{source}@{','.join(f'{number:g}' for number in places[0].tolist())}"
        if isinstance(self.place, Everything):
            return source
        return f"{source}@{self.place.absolute() if isinstance(self.place, Path) else 'mask'}"


def _is_one_click(points: Points) -> bool:
    alone = points.box is None and points.mask is None
    return alone and points.labels.tolist() == [1]


def _existing(name: str) -> Path:
    if not Path(name).is_file():
        raise BadPrompt(
            f"there is no image {name!r} to take an example from; give FILE or FILE@PLACE"
        )
    return Path(name)


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


@dataclass(frozen=True, eq=False)
class Concept:
    """What a few examples teach: embeddings of one encoder, and how they were made.

    name: letters, digits, "_", "-" and ".". likes: float32 (P, D), unit rows. unlikes: (M, D), of
    the counter-examples. encoder, fingerprint: of the encoder. given: P + M texts for
    ``Example.parse``. thumbnails: uint8 (P + M, S, S, 3) RGB. Raises BadPrompt for a name that is
    none, and ValueError for tables that do not belong together.
    """

    name: str
    likes: Array
    unlikes: Array
    encoder: str
    fingerprint: str
    given: tuple[str, ...]
    thumbnails: Array

    def __post_init__(self) -> None:
        check_name(self.name)
        tables = (self.likes, self.unlikes)
        if not len(self.likes):
            raise BadPrompt(f"concept {self.name!r} has no example; give one or more it is like")
        if (
            any(table.dtype != np.float32 or table.ndim != 2 for table in tables)
            or len({table.shape[1] for table in tables}) != 1
        ):
            raise ValueError(f"want float32 (N, D) tables, got {[t.shape for t in tables]}")
        if not all(np.isfinite(table).all() for table in tables):
            raise ValueError("an embedding is not finite")
        count, small = len(self.likes) + len(self.unlikes), self.thumbnails
        if len(self.given) != count or len(small) != count:
            raise ValueError(f"want {count} examples, got {len(self.given)} and {len(small)}")
        if small.dtype != np.uint8 or small.ndim != 4 or small.shape[3] != 3 or 0 in small.shape:
            raise ValueError(f"want uint8 (N, S, S, 3) thumbnails, got {small.dtype} {small.shape}")

    @property
    def text(self) -> str:
        """Return the text that stands for it, "@bolt"."""
        return f"{MARK}{self.name}"

    @property
    def typical(self) -> Array:
        """Mark the likes that count, bool (P,): of three or more not those unlike the others.

        A click may cut out something else than the object that was meant.
        """
        count = len(self.likes)
        if count < 3:
            return np.ones(count, bool)
        alike = ((self.likes @ self.likes.T).sum(axis=1) - 1) / (count - 1)
        typical: Array = alike >= _OUTLIER * alike.max()
        return typical

    def remake(self, encoder: str) -> str:
        """Return the command that makes it again with another encoder."""
        flags = ["--like"] * len(self.likes) + ["--unlike"] * len(self.unlikes)
        pairs = zip(flags, self.given, strict=True)
        examples = " ".join(f"{flag} {shlex.quote(text)}" for flag, text in pairs)
        return f"segclip concepts add {self.name} {examples} --encoder {shlex.quote(encoder)}"

    def check(self, encoder: str, fingerprint: str) -> None:
        """Raise Unsupported if it was made with another encoder than this one."""
        if fingerprint != self.fingerprint or (not fingerprint and encoder != self.encoder):
            raise Unsupported(
                f"concept {self.name!r} was made with the encoder {self.encoder}, not with "
                f"{encoder}; make it again: {self.remake(encoder)}"
            )

    def to_bytes(self) -> bytes:
        """Return the content of its file, which ``read`` reads."""
        about = {
            "version": _VERSION,
            "name": self.name,
            "encoder": self.encoder,
            "fingerprint": self.fingerprint,
            "given": self.given,
        }
        tensors = {
            "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
            "likes": self.likes,
            "unlikes": self.unlikes,
            "thumbnails": self.thumbnails,
        }
        data: bytes = safetensors.numpy.save(
            {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        )
        return data

    def save(self, path: Path | None = None) -> Path:
        """Write its file, by default to the concepts folder, and return the path.

        Raises NotWritable.
        """
        return atomic.write(path or path_of(self.name), self.to_bytes())


def folder() -> Path:
    """Return the folder of the saved concepts."""
    return cache.cache_folder() / "concepts"


def check_name(name: str) -> str:
    """Return the name. Raises BadPrompt where it cannot name a concept."""
    if not _NAME.fullmatch(name) or name.lower().endswith(SUFFIX):
        raise BadPrompt(
            f"{name[:80]!r} cannot name a concept; a name has letters, digits, '_', '-' and '.', "
            "begins with none of the last two, and has at most 64 characters"
        )
    return name


def path_of(name: str) -> Path:
    """Return where the concept of a name is saved. Raises BadPrompt for a name that is none."""
    return folder() / f"{check_name(name)}{SUFFIX}"


def names() -> list[str]:
    """Return the names of the saved concepts, sorted."""
    return sorted(path.stem for path in folder().glob(f"*{SUFFIX}") if _NAME.fullmatch(path.stem))


def name_in(text: str) -> str | None:
    """Return the concept a text stands for, "bolt" for "@bolt" and "the @bolt", else None."""
    found = _MARKED.fullmatch(text)
    return found[1] if found else None


def names_in(texts: Iterable[str]) -> list[str]:
    """Return the concepts that texts name, also behind words of place, each once."""
    parts = (name_in(noun) for text in texts for noun in nouns(text))
    return list(dict.fromkeys(name for name in parts if name is not None))


def locate(name: str) -> Path:
    """Return the file of a concept, by name or by the path of a .concept file.

    Raises BadPrompt for a name that is none, and UnknownName where there is no such file.
    """
    if name.lower().endswith(SUFFIX):
        path = Path(name).expanduser()
        if os.environ.get(FILES) == "0":
            raise BadPrompt(f"concepts are taken by name here, not from a file: {name[:80]!r}")
    else:
        path = path_of(name)
    if not path.is_file():
        known = ", ".join(map(repr, names()))
        there = f"there are {known}" if known else "there are none yet"
        raise UnknownName(
            f"unknown concept {name!r}; {there}: segclip concepts add NAME --like FILE@X,Y"
        )
    return path


def stamp(name: str) -> str:
    """Return the SHA-256 of a concept's file. Raises what ``locate`` does, and BadIndex."""
    return sha256(_bytes(locate(name))).hexdigest()


def find(name: str, unsaved: Sequence[Concept] = ()) -> Concept:
    """Return the concept of a name: one of ``unsaved``, else the saved one.

    Raises what ``locate`` does, and BadIndex for a damaged file.
    """
    given = next((concept for concept in unsaved if concept.name == name), None)
    return given or read(locate(name))


def read(path: Path) -> Concept:
    """Read a concept's file; nothing in it is run. Raises BadIndex for a damaged one."""
    data = _bytes(path)
    try:
        tensors = safetensors.numpy.load(data)
        about = json.loads(tensors["about"].tobytes())
        if about["version"] != _VERSION:
            raise ValueError(f"it has version {about['version']!r}, not {_VERSION}")
        name, encoder, fingerprint = (about[key] for key in ("name", "encoder", "fingerprint"))
        if not all(isinstance(word, str) for word in (name, encoder, fingerprint, *about["given"])):
            raise ValueError("a name in it is not a text")
        return Concept(
            name,
            tensors["likes"],
            tensors["unlikes"],
            encoder,
            fingerprint,
            tuple(about["given"]),
            tensors["thumbnails"],
        )
    except (SafetensorError, BadPrompt, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadIndex(
            f"the concept file {path} is damaged or of another version: {one_line(error)}; remove "
            "it and make the concept again"
        ) from error


def remove(name: str) -> Path:
    """Delete a saved concept and return the path. Raises BadPrompt, UnknownName, NotWritable."""
    check_name(name)
    path = locate(name)
    try:
        path.unlink()
    except OSError as error:
        raise NotWritable(f"{path}: cannot be removed, {error.strerror or error}") from error
    return path


def _bytes(path: Path) -> bytes:
    try:
        return regular.read(path, most=_MAX_BYTES)
    except OSError as error:
        raise BadIndex(
            f"the concept file {path} cannot be read: {error.strerror or error}"
        ) from error
