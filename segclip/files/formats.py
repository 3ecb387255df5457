"""List the output formats; no writer is imported, as the command line reads these at startup."""

from __future__ import annotations

# file name suffix of each format, after the image's name; exporters has the writers by these keys
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

# one file per batch; in a batch these take precedence over formats of the same name above
PER_RUN: tuple[str, ...] = ("coco", "coco-polygons", "yolo", "jsonl", "parquet")
