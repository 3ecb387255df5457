"""Name the formats results are written in. No writer is imported here: the command line reads this
table at once.
"""

from __future__ import annotations

# what a format's file is called after the picture's name; the writers are in exporters, by the same
# names
PER_IMAGE: dict[str, str] = {
    "overlay": "overlay.png",
    "png": "mask.png",
    "cutout": "cutout.png",
    "labelmap": "labelmap.png",
    "json": "json",
    "coco": "coco.json",
    "labelme": "labelme.json",
    "svg": "svg",
    "geojson": "geojson",
    "npz": "npz",
}

# made of all results of a batch; there, these go before the ones above of the same name
PER_RUN: tuple[str, ...] = ("coco", "coco-polygons", "yolo", "jsonl", "parquet")
