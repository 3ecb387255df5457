"""Scenes of flat shapes: masks are exact, and what is written reads back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segclip.evaluation.datasets import read_folder
from train import shapes
from train.captions import tables


def test_a_seed_is_a_scene_of_objects_apart() -> None:
    scene, again = shapes.paint(3), shapes.paint(3)
    assert np.array_equal(scene.pixels, again.pixels)
    assert not (scene.masks[0] & scene.masks[1]).any()
    for mask, name in zip(scene.masks, scene.names, strict=True):
        colour = np.median(scene.pixels[mask], axis=0)
        near = {
            word: np.abs(colour - np.clip(shade, 0, 255)).sum()
            for word, shade in shapes.COLOURS.items()
        }
        assert name.split()[0] in sorted(near, key=lambda word: near[word])[:2]
        assert name in scene.caption


def test_the_last_scenes_are_held_out_and_outlined(tmp_path: Path) -> None:
    shapes.write(tmp_path, 5, held_out=2, first=40)
    trained, validation = tables.split(tables.read(tmp_path / "captions.jsonl"))
    assert (len(trained), len(validation)) == (3, 2)
    assert [path.image.name for path in validation if isinstance(path.image, Path)] == [
        "00043.png",
        "00044.png",
    ]
    for sample in read_folder(tmp_path):
        scene = shapes.paint(int(sample.path.stem))
        assert set(sample.names) == set(scene.names)
