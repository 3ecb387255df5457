"""The recipe of mini-sam's refiner: its training data; it learns, stops, resumes and serves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segclip.proposers import sam
from segclip.proposers.refiner import Refiner
from segclip.proposers.sam import SAM
from segclip.types import Boxes
from tests.networks import sample_image
from tests.train.test_sam import GLYPHS
from train.refiner import EDGES, EMPTY, FOCUS, RefinerRecipe, RefinerRun, Store, answers
from train.sam import ARCHITECTURE
from train.scenes.material import Material
from train.scenes.tiles import make_tile


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sam")
    torch.manual_seed(0)
    sam.save(ARCHITECTURE.build(), ARCHITECTURE, folder)
    return folder


def test_the_oldest_answers_go_and_images_are_mirrored_with_their_truth() -> None:
    store = Store(3, 8)
    for value in range(5):
        planes, truth = np.full((7, 8, 8), value, np.float32), np.zeros((8, 8), np.float32)
        planes[0, :, :4], truth[:, :4] = 9, 1
        store.add(planes, truth)
    planes, truth = store.draw(np.random.default_rng(0), 64)
    assert set(planes[:, 1, 0, 0].tolist()) == {2.0, 3.0, 4.0}
    left = truth[:, 0, 0, 0] == 1
    assert 10 < int(left.sum()) < 54
    assert torch.equal(planes[:, 0] == 9, truth[:, 0] == 1)


def test_windows_contain_the_object_with_its_clicks_on_it(given: Path) -> None:
    network, count = sam.load(given)[0].eval(), 0
    for seed in range(4):
        tile = make_tile(seed, Material(GLYPHS))
        assert tile is not None
        for planes, truth, turn in answers(
            network, Refiner(FOCUS).eval(), tile, np.random.default_rng(seed)
        ):
            assert planes.shape == (7, FOCUS.size, FOCUS.size)
            assert truth.sum() >= EMPTY
            count += 1
            if turn == 0:
                on, box = planes[4] > 0, planes[6] > 0
                assert on.any() != box.any()
                assert truth[on].mean() > 0.4 if on.any() else truth[box].sum() > 0.75 * truth.sum()
    assert count > 8


@pytest.mark.slow
def test_it_learns_stops_resumes_and_serves(tmp_path: Path, given: Path) -> None:
    recipe = RefinerRecipe(batch=2, kept=16, warm_up=1)
    run = RefinerRun(tmp_path / "run", given, recipe, Material(GLYPHS))
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    while run.state.step < 2:
        run.update()
    assert run.store.added >= 16, "answers are collected first"
    assert any(
        not torch.equal(value, before[name]) for name, value in run.network.state_dict().items()
    )
    run.state.spent = 1
    run.state.keep()
    resumed = RefinerRun(tmp_path / "run", given, replace(recipe, minutes=1e-6), Material(GLYPHS))
    resumed.resume()
    resumed.train()  # no minutes are left
    assert (resumed.state.step, resumed.tiles) == (2, run.tiles)
    resumed.export(given)
    served = SAM(given)
    assert (served.options.focus, served.options.edges) == (FOCUS, EDGES)
    assert (
        len(served.decode(served.encode(sample_image(240, 320)), Boxes([(20, 30, 180, 140)]))) == 1
    )
