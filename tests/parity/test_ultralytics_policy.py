"""Policy `ultralytics` elects what ultralytics' own text prompt elects, of the same masks with the
same weights.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import open_clip
import PIL.Image
import pytest
import safetensors.torch
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from pycocotools.coco import COCO

from segclip import images
from segclip.encoders.openclip import OpenClip, OpenClipOptions
from segclip.ranking.embedding import embed_texts, similarity
from segclip.scoring.crops import POLICIES
from segclip.scoring.scorers import CropScorer
from segclip.types import Image, Masks

from ..small_clip import PREPROCESS_CFG, save_small_clip
from ..upstream import elect, install_clip, remove_clip

pytestmark = pytest.mark.parity

FLOAT32 = OpenClipOptions(precision="float32")
TEXTS = ["a dog", "the left chair", "something red", "a wheel"]
PHOTOS = 20
CANDIDATES = 12


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenClip]:
    folder = tmp_path_factory.mktemp("clip")
    save_small_clip(folder)
    encoder = OpenClip(f"file:{folder}", options=FLOAT32)
    preprocess = image_transform_v2(PreprocessCfg(**PREPROCESS_CFG), is_train=False)
    install_clip(encoder._model, preprocess, open_clip.SimpleTokenizer(context_length=16))
    yield encoder
    remove_clip()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenClip]:
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32")
    safetensors.torch.save_file(model.eval().state_dict(), folder / "model.safetensors")
    install_clip(model, preprocess, open_clip.get_tokenizer("ViT-B-32"))
    yield OpenClip(f"ViT-B-32/file:{folder}/model.safetensors", options=FLOAT32)
    remove_clip()


def elected(encoder: OpenClip, image: Image, masks: Masks) -> set[int]:
    scorer = CropScorer(encoder, POLICIES["ultralytics"])
    values = similarity(scorer.embed_regions(image, masks), embed_texts(encoder, TEXTS, ["{}"]))
    return set(values.argmax(axis=0).tolist()) & set(np.flatnonzero(scorer.scores(masks)).tolist())


def blobs(size: tuple[int, int], count: int, rng: np.random.Generator) -> Masks:
    """Scatter ellipses of 2 to a third of the image's pixels across, in boxes that are not
    tight.
    """
    height, width = size
    dense = np.zeros((count, height, width), np.uint8)
    for layer in dense:
        axes = (int(rng.integers(1, width // 3)), int(rng.integers(1, height // 3)))
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.ellipse(layer, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    tight = Masks.from_dense(dense)
    room = np.array([-3, -3, 5, 5])
    boxes = np.clip(tight.boxes + room, 0, [width, height, width, height])
    return Masks(
        boxes,
        tuple(dense[row, y1:y2, x1:x2] > 0 for row, (x1, y1, x2, y2) in enumerate(boxes)),
        size,
    )


def annotated(folder: Path) -> list[tuple[Image, Masks]]:
    """Read the first PHOTOS photographs with three or more annotated objects, and up to CANDIDATES
    masks of each.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(folder / "instances.json")
    found: list[tuple[Image, Masks]] = []
    for number in sorted(coco.imgs):
        rows = coco.imgToAnns[number][:CANDIDATES]
        if len(rows) >= 3 and len(found) < PHOTOS:
            image = images.load(folder / "images" / coco.imgs[number]["file_name"])
            found.append((image, Masks.from_dense(np.stack([coco.annToMask(row) for row in rows]))))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_synthetic_images(small: OpenClip, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = int(rng.integers(80, 200)), int(rng.integers(80, 400))
    coarse = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    image = Image(
        np.asarray(
            PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC)
        )
    )
    masks = blobs(image.size, 15, rng)
    assert elected(small, image, masks) == elect(image, masks, TEXTS)


@pytest.mark.shared
@pytest.mark.long
def test_photographs(real: OpenClip, shared_data: Path) -> None:
    photos = annotated(shared_data / "coco-dev")
    assert len(photos) >= PHOTOS
    for image, masks in photos:
        assert elected(real, image, masks) == elect(image, masks, TEXTS), image.source
