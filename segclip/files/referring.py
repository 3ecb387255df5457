"""Read referring expressions and the objects that they mean, in the formats they are published in.

- RefCOCO, RefCOCO+, RefCOCOg: refs(*).p, pickles that are read as plain data, beside instances.json
  (https://github.com/lichengunc/refer)
- their reviewed versions of Ref-L4: *_reviewed.json, beside the same instances.json
  (https://huggingface.co/datasets/JierunChen/Ref-L4)
- gRefCOCO: grefs(*).json, beside instances.json; an expression means any number of objects
  (https://github.com/henghuiding/gRefCOCO)
- PhraseCut: refer_*.json, beside image_data_split3000.json
  (https://github.com/ChenyunWu/PhraseCutDataset)
- SA-Co: COCO's format with a phrase for each row of its images
  (https://github.com/facebookresearch/sam3)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import BadPrompt, BadTable
from . import coco, pickles, tables

ONE, SEVERAL, REGION, PHRASE = "refcoco", "grefcoco", "phrasecut", "sa-co"
NAMES = ("refs(*).p", "grefs(*).json", "grefs(*).p", "refer_*.json", "*_reviewed.json")
INSTANCES, SIZES = "instances.json", "image_data_split3000.json"
_IMAGES = ("images", "../images/mscoco/images/train2014")  # seen from the table's folder
_WHAT = "the expressions"
_MOST = 5_000_000  # expressions of a split; rows of a pickle may share the same sentences


@dataclass(frozen=True, eq=False)
class Expression:
    """An expression and the objects it means.

    key: unique in the file. things: none, one or several objects.
    """

    key: str
    text: str
    things: tuple[coco.Thing, ...]


@dataclass(frozen=True, eq=False)
class ReferredImage:
    """An image and the expressions about it. name: relative to the images. size: (H, W)."""

    name: str
    size: tuple[int, int]
    expressions: tuple[Expression, ...]


@dataclass(frozen=True, eq=False)
class ReferringSet:
    """A split of expressions.

    kind: ONE object for each expression; SEVERAL or no objects; the REGION that they cover
    together; each object of a PHRASE. files: those that were read. images: sorted by name.
    """

    kind: str
    files: tuple[Path, ...]
    images: tuple[ReferredImage, ...]


# an image's name and size, and an expression about it
_Row: TypeAlias = tuple[str, tuple[int, int], Expression]
# the kind, the other files that were read, and the rows
_Content: TypeAlias = tuple[str, tuple[Path, ...], Iterator[_Row]]
_Form: TypeAlias = Callable[[Any, Path, str], _Content]


def read(data: Path, split: str = "val") -> ReferringSet:
    """Read the expressions of a file, or of a folder that holds one file of them.

    split: of a file that holds several. Raises BadPrompt for an unclear folder, and BadTable.
    """
    file = _table(data, split)
    pickled = file.suffix.lower() in (".p", ".pkl", ".pickle")
    content = (pickles.read if pickled else tables.read_json)(file, _WHAT)
    form = _form(content)
    if form is None:
        raise BadTable(
            f"{_WHAT} {file} are in no known format; give {', '.join(NAMES)} or a file of SA-Co"
        )
    kind, beside, rows = form(content, file, split)
    images: dict[tuple[str, tuple[int, int]], list[Expression]] = {}
    for number, (name, size, expression) in enumerate(rows):
        if number == _MOST:
            raise BadTable(f"{_WHAT} {file} are more than {_MOST:,}; divide the file")
        images.setdefault((name, size), []).append(expression)
    found = [ReferredImage(*key, tuple(images[key])) for key in sorted(images)]
    return ReferringSet(kind, (file, *beside), tuple(found))


def images_of(data: ReferringSet) -> Path:
    """Return the folder of the images: the first of the usual places. Raises BadPrompt."""
    places = [data.files[0].parent / place for place in _IMAGES]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise BadPrompt(
            f"there is no folder of images at {' or '.join(map(str, places))}; give --images FOLDER"
        )
    return found


def _table(data: Path, split: str) -> Path:
    """Return the file of expressions that a folder holds, or the file itself."""
    if not data.is_dir():
        return data
    found = sorted({path for name in NAMES for path in data.glob(name)})
    if len(found) > 1:  # a file for each split
        endings = (f"_{split}.json", f"_{split}_reviewed.json")
        of_split = [path for path in found if path.name.endswith(endings)]
        found = of_split if len(of_split) == 1 else found
    if len(found) == 1:
        return found[0]
    holds = " and ".join(path.name for path in found) or f"none of {', '.join(NAMES)}"
    raise BadPrompt(f"{data} holds {holds}; give one file of expressions")


def _form(content: Any) -> _Form | None:
    """Return the reader of a file's content, by the fields of its first row."""
    rows = content.get("images") if isinstance(content, dict) else content
    first = rows[0] if isinstance(rows, list) and rows else None
    fields = first if isinstance(first, dict) else {}
    forms: dict[str, _Form] = {"Polygons": _phrasecut, "sentences": _refs}
    if isinstance(content, dict):
        forms = {"text_input": _saco, "original_id": _reviewed}
    return next((form for field, form in forms.items() if field in fields), None)


def _refs(content: Any, file: Path, split: str) -> _Content:
    """Read the rows of RefCOCO and gRefCOCO: an object, or objects, and their sentences."""
    beside = file.parent / INSTANCES
    objects = _Objects(coco.read(beside))
    rows = list(coco.Fields({"refs": content}, file).rows("refs"))
    splits = sorted({row.text("split", "") for row in rows})
    if split not in splits:
        raise BadTable(f"{file} has no split {split!r}; it has {', '.join(splits)}")
    several = any(isinstance(row.row.get("ann_id"), list) for row in rows)

    def expressions() -> Iterator[_Row]:
        for number, row in enumerate(rows):
            if row.text("split", "") != split:
                continue
            key = row.known("image_id", objects.images, f"{INSTANCES}'s images")
            things = objects.listed(row, key) if several else (objects.find(row, "ann_id", key),)
            image = objects.images[key]
            for place, sentence in enumerate(row.rows("sentences")):
                expression = Expression(f"{number}.{place}", _sentence(sentence), things)
                yield image.name, image.size, expression

    return SEVERAL if several else ONE, (beside,), expressions()


def _sentence(row: coco.Fields) -> str:
    """Return a sentence as its author wrote it but in lower case, as zero-shot papers use it."""
    raw = row.text("raw", "").strip()
    return (raw or row.text("sent", "")).lower()


def _reviewed(content: Any, file: Path, split: str) -> _Content:
    """Read the rows of Ref-L4's reviewed files: a caption each, of an object of instances.json.

    Captions that the review rejected, of quality 0, are left out.
    """
    beside = file.parent / INSTANCES
    objects, top = _Objects(coco.read(beside)), coco.Fields(content, file)
    captions = {row.key("id"): row for row in top.rows("images")}

    def expressions() -> Iterator[_Row]:
        for number, row in enumerate(top.rows("annotations")):
            if row.number("caption_quality", least=0, default=1) == 0:
                continue
            caption = captions[row.known("image_id", captions, "images")]
            key = caption.known("original_id", objects.images, f"{INSTANCES}'s images")
            thing, image = objects.find(row, "original_id", key), objects.images[key]
            yield image.name, image.size, Expression(str(number), caption.text("caption"), (thing,))

    return ONE, (beside,), expressions()


def _phrasecut(content: Any, file: Path, split: str) -> _Content:
    """Read the rows of PhraseCut: a phrase and the polygons of each object it means."""
    beside = file.parent / SIZES
    listed = coco.Fields({"images": tables.read_json(beside, "the sizes of the images")}, beside)
    sizes = {
        row.key("image_id"): (row.whole("height", least=1), row.whole("width", least=1))
        for row in listed.rows("images")
    }

    def expressions() -> Iterator[_Row]:
        for number, row in enumerate(coco.Fields({"phrases": content}, file).rows("phrases")):
            key = row.known("image_id", sizes, SIZES)
            expression = Expression(str(number), row.text("phrase"), _covered(row, sizes[key]))
            yield f"{key}.jpg", sizes[key], expression

    return REGION, (beside,), expressions()


def _covered(row: coco.Fields, size: tuple[int, int]) -> tuple[coco.Thing, ...]:
    """Return the objects that polygons outline; one without three points covers nothing."""
    instances = row.row.get("Polygons")
    if not isinstance(instances, list) or not all(isinstance(each, list) for each in instances):
        row.fail("Polygons", "a list of polygons for each object")
    things = []
    for instance in instances:
        if not all(
            isinstance(polygon, list) and all(isinstance(xy, list) for xy in polygon)
            for polygon in instance
        ):
            row.fail("Polygons", "polygons of points, [[x, y], [x, y], [x, y], ...]")
        outlines = [list(chain(*polygon)) for polygon in instance if len(polygon) > 2]
        if not outlines:
            continue
        outlined = coco.Fields({"segmentation": outlines}, row.where)
        polygons, _ = coco.segmentation(outlined, size)
        things.append(coco.Thing(row.where, 0, (), 0.0, False, None, (), polygons, "", None))
    return tuple(things)


def _saco(content: Any, file: Path, split: str) -> _Content:
    """Read the rows of SA-Co: each row of the images is a phrase, and objects refer to it.

    Phrases whose objects are not all outlined are left out, as in SAM 3's evaluator.
    """
    table = coco.instances(content, str(file))
    images = {image.key: image for image in table.images}

    def expressions() -> Iterator[_Row]:
        for number, row in enumerate(coco.Fields(content, file).rows("images")):
            if row.has("is_instance_exhaustive") and not row.flag("is_instance_exhaustive"):
                continue
            image = images[row.key("id")]
            things = tuple(thing for thing in table.things[image.key] if not thing.crowd)
            yield image.name, image.size, Expression(str(number), row.text("text_input"), things)

    return PHRASE, (), expressions()


class _Objects:
    """Find the objects of instances.json by their ids."""

    def __init__(self, table: coco.Instances) -> None:
        self.images = {row.key: row for row in table.images}
        self.things = {
            thing.key: (image, thing)
            for image, things in table.things.items()
            for thing in things
            if thing.key is not None
        }

    def find(self, row: coco.Fields, name: str, image: coco.Key) -> coco.Thing:
        """Return the object whose id a field holds, one of an image. Raises BadTable."""
        key = row.known(name, self.things, f"{INSTANCES}'s annotations")
        found, thing = self.things[key]
        if found != image:
            row.fail(name, f"an object of image {image}, not of image {found}")
        return thing

    def listed(self, row: coco.Fields, image: coco.Key) -> tuple[coco.Thing, ...]:
        """Return the objects whose ids a row lists, without crowds; none for -1. Raises BadTable.

        gRefCOCO writes -1 for an expression that means nothing in the image.
        """
        listed = row.row.get("ann_id")
        found = (
            self.find(coco.Fields({"ann_id": key}, row.where), "ann_id", image)
            for key in (listed if isinstance(listed, list) else [listed])
            if key != -1
        )
        return tuple(thing for thing in found if not thing.crowd)
