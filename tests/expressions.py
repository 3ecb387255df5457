"""Write small data sets of referring expressions, in each format, about two painted images.

a.png has a red, a green and a blue box, b.png two red ones: FakeProposer finds them exactly.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from pycocotools import mask as coco_mask

from segclip.types import Array
from tests.fakes import paint

Box = tuple[int, int, int, int]  # xyxy, half-open
SIZE = (120, 160)
BOXES: dict[int, tuple[int, str, Box]] = {  # image, colour, box, by the id of the annotation
    1: (1, "red", (10, 10, 50, 50)),
    2: (1, "green", (60, 20, 100, 80)),
    3: (1, "blue", (110, 60, 150, 110)),
    4: (2, "red", (10, 10, 50, 50)),
    5: (2, "red", (100, 60, 150, 110)),
}
FILES = {1: "a.png", 2: "b.png"}
COLOURS = ("red", "green", "blue")


def box_mask(box: Box) -> Array:
    """Return a filled box: bool (120, 160)."""
    mask = np.zeros(SIZE, bool)
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = True
    return mask


def code_of(mask: Array) -> dict[str, Any]:
    """Return a mask's run-length code, as COCO writes it."""
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def paint_images(folder: Path, files: dict[int, str] = FILES) -> None:
    """Write the two images to images/, under these names."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for image, name in files.items():
        boxes = [(colour, box) for of, colour, box in BOXES.values() if of == image]
        PIL.Image.fromarray(paint(*boxes).pixels).save(folder / "images" / name)


def instances(**changed: Box) -> dict[str, Any]:
    """Return instances.json of the boxes. changed: other boxes, by a colour of the first image."""
    height, width = SIZE
    annotations = []
    for key, (image, colour, box) in BOXES.items():
        x1, y1, x2, y2 = changed.get(colour, box) if image == 1 else box
        annotations.append(
            {
                "id": key,
                "image_id": image,
                "category_id": COLOURS.index(colour) + 1,
                "iscrowd": 0,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "segmentation": code_of(box_mask((x1, y1, x2, y2))),
            }
        )
    return {
        "images": [
            {"id": image, "file_name": name, "height": height, "width": width}
            for image, name in FILES.items()
        ],
        "annotations": annotations,
        "categories": [{"id": at, "name": name} for at, name in enumerate(COLOURS, 1)],
    }


def ref(image: int, thing: Any, *texts: str, split: str = "val") -> dict[str, Any]:
    """Return a row of refs(*).p. thing: the id of an annotation, or a list of them."""
    return {
        "ref_id": 7,
        "ann_id": thing,
        "category_id": 1,
        "image_id": image,
        "file_name": "COCO_train2014_000000000001_1.jpg",
        "split": split,
        "sent_ids": list(range(len(texts))),
        "sentences": [
            {"raw": text, "sent": text.lower(), "sent_id": at, "tokens": text.split()}
            for at, text in enumerate(texts)
        ],
    }


REFS = [
    ref(1, 1, "Red box", "the red one"),
    ref(1, 2, "green"),
    ref(1, 3, "blue", "the blue box on the right", "the red box"),  # the last is wrong on purpose
    ref(2, 5, "the right red box"),
    ref(2, 4, "red", split="testA"),
]
GREFS = [
    ref(2, [4, 5], "red", "both red boxes"),
    ref(1, [1], "red"),
    ref(1, [2, 3], "green"),
    ref(1, [-1], "a zebra", "yellow"),
    ref(2, [-1], "a red zebra"),  # answered, which is wrong
    ref(2, [5], "a walrus"),  # not answered, which is wrong
]


def refcoco(folder: Path, refs: Any = REFS, *, protocol: int = 2, **changed: Box) -> Path:
    """Write RefCOCO's layout, and return refs(unc).p."""
    paint_images(folder)
    (folder / "instances.json").write_text(json.dumps(instances(**changed)))
    file = folder / "refs(unc).p"
    file.write_bytes(pickle.dumps(refs, protocol=protocol))
    return file


def grefcoco(folder: Path, refs: Any = GREFS) -> Path:
    """Write gRefCOCO's layout, and return grefs(unc).json."""
    paint_images(folder)
    (folder / "instances.json").write_text(json.dumps(instances()))
    file = folder / "grefs(unc).json"
    file.write_text(json.dumps(refs))
    return file


def reviewed(folder: Path) -> Path:
    """Write a reviewed file of Ref-L4 whose second caption was rejected; return it."""
    paint_images(folder)
    (folder / "instances.json").write_text(json.dumps(instances()))
    rows = [(1, 1, "red box", 1), (1, 2, "the red one", 0), (2, 5, "the right red box", 1)]
    table = {
        "images": [
            {"id": at, "original_id": image, "caption": text, "file_name": FILES[image]}
            for at, (image, _, text, _) in enumerate(rows)
        ],
        "annotations": [
            {"id": at, "image_id": at, "original_id": thing, "caption_quality": quality}
            for at, (_, thing, _, quality) in enumerate(rows)
        ],
    }
    file = folder / "refcoco_val_reviewed.json"
    file.write_text(json.dumps(table))
    return file


def polygon(box: Box) -> list[list[int]]:
    """Return a box's corners."""
    x1, y1, x2, y2 = box
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def phrasecut(folder: Path) -> Path:
    """Write PhraseCut's layout, and return refer_miniv.json."""
    paint_images(folder, {1: "1.jpg", 2: "2.jpg"})
    sizes = [{"image_id": image, "height": 120, "width": 160, "split": "miniv"} for image in (1, 2)]
    (folder / "image_data_split3000.json").write_text(json.dumps(sizes))
    rows = [(1, (1,), "red box"), (2, (4, 5), "red boxes"), (1, (2,), "a walrus")]
    tasks = [
        {
            "task_id": f"{image}__{at}",
            "image_id": image,
            "ann_ids": list(things),
            "instance_boxes": [[0, 0, 1, 1] for _ in things],
            "Polygons": [[polygon(BOXES[key][2]), [[1, 1], [2, 2]]] for key in things],
            "phrase": phrase,
            "phrase_structure": {"name": phrase},
        }
        for at, (image, things, phrase) in enumerate(rows)
    ]
    file = folder / "refer_miniv.json"
    file.write_text(json.dumps(tasks))
    return file


def saco(folder: Path) -> Path:
    """Write a file in SA-Co's format, and return it: phrases with and without objects."""
    paint_images(folder)
    rows = [  # image, phrase, objects, all of them outlined
        (1, "red box", (1,), True),
        (2, "red box", (4, 5), True),
        (1, "a zebra", (), True),
        (2, "green", (), True),
        (1, "blue", (3,), False),
    ]
    height, width = SIZE
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for at, (image, phrase, things, exhaustive) in enumerate(rows):
        images.append(
            {
                "id": at,
                "file_name": FILES[image],
                "height": height,
                "width": width,
                "text_input": phrase,
                "is_instance_exhaustive": int(exhaustive),
            }
        )
        for key in things:
            x1, y1, x2, y2 = BOXES[key][2]
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": at,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height],
                    "segmentation": code_of(box_mask(BOXES[key][2])),
                }
            )
    table = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object"}],
    }
    file = folder / "gold_attributes.json"
    file.write_text(json.dumps(table))
    return file
