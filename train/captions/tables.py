"""Read images and what is said of them, as data sets are distributed, and split them by image.

COCO captions, COCO-format instances (a region and its phrases), Karpathy's JSON, Flickr8k and 30k,
any CSV, TSV or JSONL of image and caption, webdataset shards, folders of classes. A split never
parts two captions of one image.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from segclip import images
from segclip.errors import BadPrompt, BadTable
from segclip.evaluation import datasets
from segclip.files import captions, coco, lines, listing, tables
from segclip.files.captions import Caption
from segclip.types import Image, Masks

from ..engine import limits
from ..scenes.photos import HELD_OUT_EVERY

IMAGE_FOLDERS = ("images", "Images", "Flicker8k_Dataset", "flickr30k_images", "flickr30k-images")
TABLES = (
    "captions.json",
    "captions.txt",
    "captions.csv",
    "results.csv",
    "captions.jsonl",
    "dataset.json",
)
CAPTION_COLUMNS = captions.COLUMNS.known["caption"]
TRAINED_ON = ("train", "restval", "")


@dataclass(frozen=True)
class Member:
    """Point at an image inside a tar shard."""

    shard: Path
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.shard}:{self.name}"

    def read(self) -> bytes:
        """Read its bytes."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, eq=False)
class Item:
    """Hold one image, or one region of it, and all its captions or phrases.

    group: names the image; a split never parts items of one group. split: what the data set says,
    or "". region: one mask, or None for the whole image.
    """

    image: Path | Member
    captions: tuple[str, ...]
    group: str
    split: str = ""
    region: Masks | None = None

    def load(self) -> Image:
        """Read the image; raises BadImage."""
        source = self.image.read() if isinstance(self.image, Member) else self.image
        return images.load(source, label=str(self.image))


def read(path: Path, folder: Path | None = None) -> list[Item]:
    """Read a data set, told by its files; ``folder`` holds its images, where they are not beside
    it.

    Raises BadPrompt for what is none of the formats this module names.
    """
    try:
        items = _read_folder(path, folder) if path.is_dir() else _read_file(path, folder)
    except BadPrompt as error:
        raise BadTable(f"{path} cannot be read as images with captions: {error}") from None
    except (
        OSError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        zlib.error,
        tarfile.TarError,
    ) as error:
        raise BadTable(f"{path} cannot be read as images with captions: {error!r}") from None
    if not items:
        raise BadTable(f"{path} holds no images with captions")
    return items


def _read_folder(path: Path, folder: Path | None) -> list[Item]:
    if shards := sorted(path.glob("*.tar")):
        return [item for shard in shards for item in _shard(shard)]
    tables = [path / name for name in TABLES] + sorted(path.glob("dataset_*.json"))
    tables += [path / name for name in datasets.TABLES]
    table = next((file for file in tables if file.is_file()), None)
    return _classes(path) if table is None else _read_file(table, folder)


def _read_file(file: Path, folder: Path | None) -> list[Item]:
    if not file.is_file():
        raise BadPrompt(f"{file}: no such file or folder")
    suffix = file.suffix.lower()
    if suffix == ".tar":
        return list(_shard(file))
    base = folder or next(
        (file.parent / name for name in IMAGE_FOLDERS if (file.parent / name).is_dir()), file.parent
    )
    if suffix == ".json":
        table = tables.read_json(file, captions.WHAT)
        if captions.is_captions(table):
            return _merge(base, captions.from_json(file, table))
        return list(_regions(coco.instances(table, str(file)), base))
    if suffix in captions.SUFFIXES:
        return _merge(base, captions.read(file))
    raise BadTable(f"{file}: want {', '.join(captions.SUFFIXES)}, .tar or a folder")


def _merge(base: Path, rows: Iterable[Caption]) -> list[Item]:
    """Gather captions by image."""
    texts: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    for row in rows:
        texts.setdefault(row.image, []).append(row.text)
        splits[row.image] = row.split
    return [Item(base / name, tuple(each), name, splits[name]) for name, each in texts.items()]


def _regions(table: coco.Instances, base: Path) -> Iterator[Item]:
    """Go through every outlined thing large enough to be asked for, with its name, other names, and
    phrases.
    """
    for image, sample in zip(table.images, datasets.samples_of(table, base), strict=True):
        for row, thing in enumerate(table.things[image.key]):
            if sample.askable[row] and not sample.crowd[row]:
                category = table.categories[thing.category]
                said = tuple(dict.fromkeys((category.name, *category.texts, *thing.phrases)))
                yield Item(sample.path, said, image.name, region=sample.masks[[row]])


def _shard(shard: Path) -> Iterator[Item]:
    """List a webdataset shard: files of one stem are one sample, an image and .txt, .cls or .json
    of its caption.
    """
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    with tarfile.open(shard) as archive:
        for member in archive:
            if member.isfile():
                folder, _, file = member.name.rpartition("/")
                stem, _, suffix = file.partition(".")
                samples.setdefault(f"{folder}/{stem}".lstrip("/"), {})["." + suffix.lower()] = (
                    member
                )
        for key, parts in samples.items():
            image = next(
                (parts[suffix] for suffix in listing.IMAGE_SUFFIXES if suffix in parts), None
            )
            if image is None:
                continue
            place = Member(shard, image.offset_data, image.size, image.name)
            yield Item(place, tuple(_said(archive, parts)), f"{shard.name}/{key}")


def _said(archive: tarfile.TarFile, parts: dict[str, tarfile.TarInfo]) -> Iterator[str]:
    for suffix in (".txt", ".caption", ".json"):
        file = archive.extractfile(parts[suffix]) if suffix in parts else None
        if file is None:
            continue
        text = file.read().decode("utf-8")
        if suffix != ".json":
            yield " ".join(text.split())
            return
        row = tables.parse_json(text)
        if not isinstance(row, dict):
            raise ValueError(f"{parts[suffix].name} holds no JSON object")
        given: Any = next((row[key] for key in CAPTION_COLUMNS if key in row), [])
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(
            isinstance(each, str) and not lines.fault(each) for each in texts
        ):
            raise ValueError(f"{parts[suffix].name} holds captions that are no texts")
        yield from texts


def _classes(path: Path) -> list[Item]:
    """Read a tree of class folders; every fifth picture of a class is held out."""
    items = []
    for kind in sorted(
        folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(".")
    ):
        name = " ".join(kind.name.replace("_", " ").split()).lower()
        for row, file in enumerate(images.walk(kind)):
            split = "val" if row % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else "train"
            items.append(Item(file, (name,), str(file.relative_to(path)), split))
    return items


def split(
    items: Sequence[Item], share: float = 0.1, seed: int = 0
) -> tuple[list[Item], list[Item]]:
    """Part items into those trained on and those that judge: as the data set says, else ``share``
    of the images.

    Raises BadPrompt when nothing is left on one side.
    """
    limits.check({"--held-out": (share, limits.PART)})
    if any(item.split for item in items):
        kinds = {item.split for item in items}
        judge = next(
            (name for name in ("val", "dev", "validation", "test") if name in kinds), "val"
        )
        parts = [i for i in items if i.split in TRAINED_ON], [i for i in items if i.split == judge]
    else:
        groups = sorted(
            {item.group for item in items}, key=lambda g: sha256(f"{seed}:{g}".encode()).digest()
        )
        held_out = set(groups[: max(1, round(share * len(groups)))])
        parts = (
            [i for i in items if i.group not in held_out],
            [i for i in items if i.group in held_out],
        )
    if not parts[0] or not parts[1]:
        raise BadPrompt(
            f"a split by image needs two images at least: {len(parts[0])} would be trained on, "
            f"{len(parts[1])} judge"
        )
    return parts


def exclude(items: Sequence[Item], file: Path) -> list[Item]:
    """Leave out the images a file lists, by id or name, one a line or as a JSON list: RefCOCO's val
    and test, say.
    """
    text = " ".join(lines.read(file, "the list of images"))
    listed = _listed(file, text) if text.startswith("[") else text.split()
    unwanted = {_number(str(name)) for name in listed}
    return [item for item in items if _number(item.group) not in unwanted]


def _listed(file: Path, text: str) -> list[Any]:
    try:
        return list(tables.parse_json(text))
    except ValueError as error:
        raise BadTable(f"{file}: {error}") from None


def _number(name: str) -> str:
    """Give what two spellings of a COCO image share: 493652 of COCO_train2014_000000493652.jpg."""
    stem = Path(name).stem
    digits = stem.rpartition("_")[2].lstrip("0")
    return digits if digits.isdigit() else stem
