"""Name the classes of data sets: common names, and WordNet's number of each class."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ..regions.crop_store import Class
from .wordnet import look_up, synsets


def imagenet_classes(folder: Path) -> list[Class]:
    """Name ImageNet's classes: the name of names.csv first, then the synset's other words."""
    rows = csv.DictReader((folder / "names.csv").read_text("utf-8").splitlines())
    found = []
    for row in sorted(rows, key=lambda row: row["wnid"]):
        number = int(row["wnid"][1:])
        words = [word.lower() for word in synsets()[number].words] if number in synsets() else []
        texts = dict.fromkeys([row["name"].replace("_", " ").lower(), *words])
        found.append(Class(tuple(texts), synset=number, group="imagenet"))
    return found


# Other names of classes, and WordNet's word for ambiguous ones.
SYNONYMS = {
    "person": ("human", "people"),
    "tv": ("television", "tv screen"),
    "couch": ("sofa",),
    "airplane": ("plane",),
    "airplanes": ("airplane", "plane"),
    "motorcycle": ("motorbike",),
    "motorbikes": ("motorbike", "motorcycle"),
    "bicycle": ("bike",),
    "cell phone": ("mobile phone", "phone", "smartphone"),
    "cellphone": ("cell phone", "phone"),
    "potted plant": ("house plant", "plant"),
    "dining table": ("table",),
    "donut": ("doughnut",),
    "hair drier": ("hair dryer",),
    "remote": ("remote control",),
    "refrigerator": ("fridge",),
    "sports ball": ("ball",),
    "mouse": ("computer mouse",),
    "keyboard": ("computer keyboard",),
    "car": ("automobile",),
    "laptop": ("laptop computer",),
    "sneakers": ("trainers", "sports shoes"),
    "t-shirt": ("tee shirt", "shirt"),
    "pants": ("trousers",),
    "purse": ("handbag", "bag"),
    "bag": ("handbag",),
    "faces": ("face", "human face"),
    "leopards": ("leopard",),
    "car side": ("car",),
    "soccer ball": ("football",),
    "water lilly": ("water lily",),
    "cup": ("mug",),
    "suitcase": ("luggage",),
    "handbag": ("purse",),
}
MEANS = {
    "tv": "television receiver",
    "mouse": "computer mouse",
    "keyboard": "computer keyboard",
    "potted plant": "flora",
    "microwave": "microwave oven",
    "hot dog": "frank",
    "remote": "remote control",
    "kite": None,
    "plate": None,
    "heels": None,
    "flats": None,
    "pumps": None,
    "loafers": None,
    "wedges": None,
    "top": None,
    "ring": None,
    "cape": None,
    "jumper": None,
    "romper": None,
    "shoes": "shoe",
    "toilet": None,
    "tick": None,
    "crab": None,
    "bass": None,
    "brain": None,
    "snoopy": None,
    "garfield": None,
    "pants": "trouser",
    "baseball bat": "baseball bat",
    "banana": None,
    "orange": None,
    "carrot": None,
    "cake": None,
    "stop sign": None,
    "wine glass": None,
}


def plain_classes(names: Sequence[str], group: str) -> list[Class]:
    """Name classes by their folder or category."""
    texts = [name.replace("_", " ").lower() for name in names]
    meanings = [look_up(MEANS.get(text, text) or "") for text in texts]
    return [
        Class((text, *SYNONYMS.get(text, ())), synset=number, group=group)
        for text, number in zip(texts, meanings, strict=True)
    ]
