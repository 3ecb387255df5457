"""Tiles of drawings, cut-outs and photographs match their layers, as do the proposer's batches."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from train.proposer import MIN_PIXELS, ProposerRecipe, ProposerRun, begin, make_batch
from train.scenes import photos
from train.scenes.compose import SceneConfig
from train.scenes.glyphs import Glyph
from train.scenes.material import GREY, Material, Mixture, photo_tile
from train.scenes.photos import Photo, load_photos

DRAWN = SceneConfig(objects=(1, 4), across=(30, 100))


def square() -> Glyph:
    pixels = np.zeros((60, 60, 4), np.float32)
    pixels[5:55, 5:55] = (0.9, 0.1, 0.1, 1)
    return Glyph("o", "red square", ("red square",), "red", pixels)


def photo(height: int = 240, width: int = 320) -> Photo:
    """A grey photo with one white object."""
    labels = np.zeros((height, width), np.int16)
    labels[60:180, 100:220] = 1
    pixels = np.where(labels[..., None] > 0, 230, 40).astype(np.uint8).repeat(3, axis=2)
    return Photo(pixels, labels, names=("box",))


def test_a_part_of_a_photo_keeps_its_labels_and_is_padded() -> None:
    codes = set()
    for seed in range(30):
        pixels, layers = photo_tile(np.random.default_rng(seed), photo(), 160, beyond=GREY)
        assert pixels.shape == (160, 160, 3)
        assert set(np.unique(layers)) <= {-1, -2}
        codes |= set(np.unique(layers))
        thing, rest = pixels[layers == -2], pixels[layers == -1]
        if len(thing) > 400 and len(rest) > 400:
            assert np.median(thing) > np.median(rest) + 60
    assert codes == {-1, -2}


def test_a_whole_photo_ends_in_padding() -> None:
    tiles = [photo_tile(np.random.default_rng(seed), photo(), 160, beyond=0) for seed in range(60)]
    padded = [(pixels == 0).all(axis=2).mean() for pixels, _ in tiles]
    assert max(padded) > 0.15  # a quarter of the square around it is outside the photo
    assert min(padded) < 0.01


def test_each_kind_of_tile_has_its_share() -> None:
    material = Material([square()], [], [photo()], Mixture(drawn=0.5, pasted=0.0))
    drawn = [(material.tile(seed, 128, DRAWN)[1] >= 0).any() for seed in range(60)]
    assert 15 < sum(drawn) < 45
    first, again = material.tile(5, 128, DRAWN), material.tile(5, 128, DRAWN)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_a_batch_locates_the_objects_of_each_tile() -> None:
    material = Material([square()], [], [photo()])
    batch = make_batch(material, range(6), 128)
    assert batch["img"].shape == (6, 3, 128, 128)
    assert batch["masks"].shape == (6, 32, 32)
    assert len(batch["bboxes"]) == len(batch["batch_idx"]) == len(batch["cls"])
    for row in range(6):
        boxes = batch["bboxes"][batch["batch_idx"] == row] * 32
        for number, (x, y, w, h) in enumerate(boxes.tolist(), 1):
            ys, xs = np.nonzero(batch["masks"][row].numpy() == number)
            if len(xs):
                assert xs.min() >= x - w / 2 - 1.1
                assert xs.max() <= x + w / 2 + 1.1
                assert ys.min() >= y - h / 2 - 1.1
                assert ys.max() <= y + h / 2 + 1.1
    assert MIN_PIXELS > 0


@pytest.mark.slow
def test_the_proposer_learns_stops_and_resumes(tmp_path: Path) -> None:
    material = Material([square()], [], [photo()])

    def fresh() -> ProposerRun:
        torch.manual_seed(0)
        recipe, network = ProposerRecipe(warm_up=1), begin(None)
        return ProposerRun(tmp_path / "runs", recipe, material, network, tmp_path / "out")

    run = fresh()
    run.update()
    run.state.keep()
    other = fresh()
    assert other.state.resume()
    for each in (run, other):
        each.update()
    for name, value in run.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name
    run.export(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["again"] < config["image_size"]


def test_photos_are_read_with_names_and_limited_per_source(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    images, things = [], []
    for number in range(20):
        file = f"{number:02d}.png"
        cv2.imwrite(str(tmp_path / "images" / file), np.zeros((40, 50, 3), np.uint8))
        source = "clothes" if number % 2 else "coco"
        images.append(
            {"id": number, "file_name": file, "height": 40, "width": 50, "source": source}
        )
        for kind, part in ((1, np.s_[5:30, 5:30]), (2, np.s_[10:20, 10:20])):
            mask = np.zeros((40, 50), np.uint8)
            mask[part] = 1
            code = coco_mask.encode(np.asfortranarray(mask))
            outline = {"size": [40, 50], "counts": code["counts"].decode()}
            box = coco_mask.toBbox(code).tolist()
            thing = {
                "image_id": number,
                "category_id": kind,
                "area": int(mask.sum()),
                "iscrowd": 0,
                "bbox": box,
            }
            things.append(thing | {"segmentation": outline})
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "coat"}]
    table = {"images": images, "annotations": things, "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(table))
    found = load_photos(tmp_path, held_out=False, most={"clothes": 3})
    assert [photo.source for photo in found].count("clothes") == 3
    assert [photo.source for photo in found].count("coco") == 8
    assert len(load_photos(tmp_path, held_out=True)) == 20 // photos.HELD_OUT_EVERY
    for photo_ in found:
        whole = photo_.source == "clothes"
        assert photo_.names == (("person",) if whole else ("person", "coat"))
        assert photo_.labels[15, 15] == (1 if whole else 2)
        assert photo_.labels[7, 7] == 1
