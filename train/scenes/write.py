"""Write labelled scenes as a data set in COCO format.

    python -m train.scenes.write tests/data/scenes --count 60 --photos ../shared/coco-dev \
        --free --jpeg

The same count and seed write the same scenes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from pycocotools import mask as coco_mask

from segclip.errors import BadPrompt
from segclip.files import atomic

from ..engine import command, limits
from ..engine.files import claim, write_image
from ..engine.options import BackgroundPhotos, SceneCount
from .compose import VALIDATION_SEED, Scene, SceneConfig, compose, phrases
from .glyphs import Glyph, load_glyphs, meanings
from .photos import Photo, load_photos


def write_folder(
    folder: Path,
    seeds: Sequence[int],
    photos: Sequence[Photo],
    *,
    config: SceneConfig = SceneConfig(),
    absent: int = 3,
    jpeg: bool = False,
) -> Path:
    """Write scenes as a COCO-format folder.

    images/ and scenes.json with names, texts, phrases and absent names.
    """
    glyphs = load_glyphs()
    categories = [
        {"id": row + 1, "name": glyph.name, "texts": glyph.texts}
        for row, glyph in enumerate(glyphs)
    ]
    rows: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        scene = compose(seed, glyphs, photos, config)
        file = f"{seed}.{'jpg' if jpeg else 'png'}"
        settings = [cv2.IMWRITE_JPEG_QUALITY, 85] if jpeg else [cv2.IMWRITE_PNG_COMPRESSION, 3]
        write_image(folder / "images" / file, scene.pixels, settings)
        height, width = scene.pixels.shape[:2]
        gone = _absent(seed, scene, glyphs, absent)
        rows.append(
            {"id": seed, "file_name": file, "height": height, "width": width, "absent": gone}
        )
        for row in range(len(scene.glyphs)):
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": seed, **_annotation(scene, row, glyphs)})
    drawn = "Noto Color Emoji, SIL Open Font License 1.1"
    info = {"drawn objects": drawn, "photos": [photo.credit for photo in photos]}
    table = {"info": info, "images": rows, "annotations": annotations, "categories": categories}
    atomic.write(folder / "scenes.json", json.dumps(table, separators=(",", ":")).encode())
    return folder / "scenes.json"


def _absent(seed: int, scene: Scene, glyphs: Sequence[Glyph], count: int) -> list[str]:
    """Pick names whose every meaning is missing from the scene."""
    rng = np.random.default_rng([seed, 1])
    present = {text for index in scene.glyphs for text in glyphs[index].texts}
    means = meanings(list(glyphs))
    names = [glyph.name for glyph in glyphs if not present & set(glyph.texts)]
    names = [name for name in names if not set(means[name]) & set(scene.glyphs)]
    if not names:
        return []
    return [str(name) for name in rng.choice(names, min(count, len(names)), replace=False)]


def _annotation(scene: Scene, row: int, glyphs: Sequence[Glyph]) -> dict[str, object]:
    rle = coco_mask.encode(np.asfortranarray(scene.masks.full(row).astype(np.uint8)))
    x1, y1, x2, y2 = (int(v) for v in scene.masks.boxes[row])
    return {
        "category_id": scene.glyphs[row] + 1,
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
        "area": int(scene.masks.areas[row]),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "iscrowd": 0,
        "visible": round(float(scene.visible[row]), 4),
        "across": round(float(scene.across[row]), 1),
        "askable": bool(scene.askable[row]),
        "phrases": phrases(scene, row, glyphs) if scene.masks.areas[row] else [],
    }


def main(
    folder: Path,
    count: SceneCount = 300,
    first: Annotated[int, typer.Option(help="First seed.")] = VALIDATION_SEED,
    photos: BackgroundPhotos = None,
    free: Annotated[
        bool, typer.Option("--free", help="Only photos whose licence allows redistribution.")
    ] = False,
    jpeg: Annotated[
        bool, typer.Option("--jpeg", help="Write JPEG instead of lossless PNG.")
    ] = False,
) -> None:
    """Write validation scenes."""
    limits.check({"--count": (count, limits.COUNT), "--first": (first, limits.SEED)})
    if first < VALIDATION_SEED:
        raise BadPrompt(
            f"--first is {first}; seeds below {VALIDATION_SEED} are for training, which composes "
            "them itself"
        )
    claim(folder)
    behind = load_photos(photos, held_out=True, free=free)
    typer.echo(
        f"{count} scenes: {write_folder(folder, range(first, first + count), behind, jpeg=jpeg)}"
    )


if __name__ == "__main__":
    command.run(main)
