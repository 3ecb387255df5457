"""The recipe of the proposer: its batches; it learns, stops and resumes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.scenes.test_material import photo, square
from train.proposer import MIN_PIXELS, ProposerRecipe, ProposerRun, begin, make_batch
from train.scenes.material import Material


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
