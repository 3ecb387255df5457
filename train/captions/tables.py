"""Read images with captions in common data set formats, and split them by image.

COCO captions, COCO-format instances (a region and its phrases), Karpathy's JSON, Flickr8k and 30k,
any CSV, TSV or JSONL of image and caption, webdataset shards, folders of classes. All captions of
an image stay on one side of a split.
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
    """An image inside a tar shard."""

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
class CaptionItem:
    """An image, or one of its regions, with all its captions or phrases.

    group: name of the image; items of one group stay on one side of a split. split: of the data
    set, or "". region: one mask, or None for the whole image.
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


def read(path: Path, folder: Path | None = None) -> list[CaptionItem]:
    """Read a data set; its type is detected from its files.

    folder: of the images, where they are not next to the table. Raises BadTable for anything but
    the formats listed in this module.
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


def _read_folder(path: Path, folder: Path | None) -> list[CaptionItem]:
    if shards := sorted(path.glob("*.tar")):
        return [item for shard in shards for item in _shard(shard)]
    tables = [path / name for name in TABLES] + sorted(path.glob("dataset_*.json"))
    tables += [path / name for name in datasets.TABLES]
    table = next((file for file in tables if file.is_file()), None)
    return _classes(path) if table is None else _read_file(table, folder)


def _read_file(file: Path, folder: Path | None) -> list[CaptionItem]:
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
    raise BadTable(
        f"{file} has an unknown type; use {', '.join(captions.SUFFIXES)}, .tar or a folder"
    )


def _merge(base: Path, rows: Iterable[Caption]) -> list[CaptionItem]:
    """Group captions by image."""
    texts: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    for row in rows:
        texts.setdefault(row.image, []).append(row.text)
        splits[row.image] = row.split
    return [
        CaptionItem(base / name, tuple(each), name, splits[name]) for name, each in texts.items()
    ]


def _regions(table: coco.Instances, base: Path) -> Iterator[CaptionItem]:
    """Yield every labelled object that is large enough, with its names and phrases."""
    for image, sample in zip(table.images, datasets.samples_of(table, base), strict=True):
        for row, thing in enumerate(table.things[image.key]):
            if sample.askable[row] and not sample.crowd[row]:
                category = table.categories[thing.category]
                texts = tuple(dict.fromkeys((category.name, *category.texts, *thing.phrases)))
                yield CaptionItem(sample.path, texts, image.name, region=sample.masks[[row]])


def _shard(shard: Path) -> Iterator[CaptionItem]:
    """Read a webdataset shard: files with one stem are a sample.

    A sample is an image and a .txt, .caption or .json file with its captions.
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
            yield CaptionItem(place, tuple(_shard_captions(archive, parts)), f"{shard.name}/{key}")


def _shard_captions(archive: tarfile.TarFile, parts: dict[str, tarfile.TarInfo]) -> Iterator[str]:
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
            raise ValueError(f"{parts[suffix].name} is not a JSON object")
        given: Any = next((row[key] for key in CAPTION_COLUMNS if key in row), [])
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(
            isinstance(each, str) and not lines.fault(each) for each in texts
        ):
            raise ValueError(f"{parts[suffix].name} holds captions that are not valid texts")
        yield from texts


def _classes(path: Path) -> list[CaptionItem]:
    """Read a tree of class folders; every fifth image of a class is held out."""
    items = []
    for kind in sorted(
        folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(".")
    ):
        name = " ".join(kind.name.replace("_", " ").split()).lower()
        for row, file in enumerate(listing.walk(kind)):
            split = "val" if row % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else "train"
            items.append(CaptionItem(file, (name,), str(file.relative_to(path)), split))
    return items


def split(
    items: Sequence[CaptionItem], share: float = 0.1, seed: int = 0
) -> tuple[list[CaptionItem], list[CaptionItem]]:
    """Split items into training and validation.

    By the data set's own split, else ``share`` of the images are for validation. Raises BadPrompt
    if one side is empty.
    """
    limits.check({"--held-out": (share, limits.PART)})
    if any(item.split for item in items):
        kinds = {item.split for item in items}
        held = next((name for name in ("val", "dev", "validation", "test") if name in kinds), "val")
        parts = [i for i in items if i.split in TRAINED_ON], [i for i in items if i.split == held]
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
            f"a split by image needs two images at least: {len(parts[0])} for training, "
            f"{len(parts[1])} for validation"
        )
    return parts


def exclude(items: Sequence[CaptionItem], file: Path) -> list[CaptionItem]:
    """Remove the images that a file lists by id or name, such as RefCOCO's val and test.

    The file has one per line, or is a JSON list.
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
    """Normalise the spelling of a COCO image: 493652 of COCO_train2014_000000493652.jpg."""
    stem = Path(name).stem
    digits = stem.rpartition("_")[2].lstrip("0")
    return digits if digits.isdigit() else stem
