"""The recipe of the mini CLIP: its texts, its crops, its loss, and that it learns, stops, resumes and serves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from segclip.crops import View, cut
from segclip.encoders.openclip import OpenClip
from segclip.types import Image, Masks
from train import region_crops, region_text
from train.bank import Bank
from train.region_crops import Class, CropStore, write_shards
from train.region_text import Recipe, Run, augment, region_loss

CLASSES = [Class(("red apple", "apple"), "red"), Class(("green apple", "apple")), Class(("box",))]


def test_a_text_shared_by_two_things_is_right_for_both() -> None:
    bank = Bank.build(CLASSES)
    row = bank.texts.index("apple")
    assert bank.means[row].tolist() == [True, True, False]
    assert bank.means[bank.texts.index("boxes")].tolist() == [False, False, True]
    assert [bank.texts[row] for row in bank.names] == ["red apple", "green apple", "box"]


def test_sampled_texts_mean_the_classes_asked_for() -> None:
    bank = Bank.build(CLASSES)
    for seed in range(10):
        rows = bank.sample(np.random.default_rng(seed), np.array([0, 2]))
        assert bank.means[rows][:, [0, 2]].any(axis=1).all()


def test_the_loss_falls_when_the_right_text_rises_and_a_wrong_one_falls() -> None:
    right = torch.tensor([[True, False]])
    thing = torch.tensor([True])
    backgrounds = torch.zeros(1, 2)
    before = region_loss(torch.tensor([[1.0, 1.0]]), right, backgrounds, thing)
    assert region_loss(torch.tensor([[2.0, 1.0]]), right, backgrounds, thing) < before
    assert region_loss(torch.tensor([[1.0, 0.0]]), right, backgrounds, thing) < before


def test_two_right_texts_do_not_push_each_other_away() -> None:
    logits = torch.tensor([[5.0, 5.0, -5.0]], requires_grad=True)
    right = torch.tensor([[True, True, False]])
    region_loss(logits, right, torch.zeros(1, 2), torch.tensor([True])).backward()
    assert logits.grad is not None
    assert (logits.grad[0, :2] <= 0).all()


def test_a_piece_of_background_should_say_background() -> None:
    logits, nothing = torch.tensor([[1.0, 1.0]]), torch.zeros(1, 2, dtype=torch.bool)
    low = region_loss(logits, nothing, torch.tensor([[0.0, 0.0]]), torch.tensor([False]))
    high = region_loss(logits, nothing, torch.tensor([[4.0, 0.0]]), torch.tensor([False]))
    assert high < low


def test_the_sigmoid_is_the_softmax_of_serving() -> None:
    """-log sigmoid(logit - logsumexp(backgrounds)) is -log of the probability that serving gives."""
    logit, others = 1.3, np.array([0.2, -0.7])
    serving = np.exp(logit) / (np.exp(logit) + np.exp(others).sum())
    margin = logit - np.log(np.exp(others).sum())
    assert np.log1p(np.exp(-margin)) == pytest.approx(-np.log(serving))


def test_stored_crops_are_the_serving_crops() -> None:
    rng = np.random.default_rng(0)
    image = Image(rng.integers(0, 256, (120, 160, 3), np.uint8))
    masks = Masks.from_windows([(40, 30, np.ones((40, 60), bool))], image.size)
    ((pixels, inside, label),) = list(region_crops._with_masks(image, masks, [4]))
    assert label == 4
    assert np.array_equal(pixels, cut(image, masks, View(region_crops.CONTEXT, "keep"), region_crops.STORED)[0])
    assert (inside > 128).mean() == pytest.approx(60 * 40 / 90**2, abs=0.02)


def test_augmented_crops_keep_the_object_in_sight() -> None:
    rgba = np.zeros((region_crops.STORED, region_crops.STORED, 4), np.uint8)
    rgba[32:64, 32:64] = 255
    rng = np.random.default_rng(1)
    for _ in range(20):
        crop = augment(rng, rgba, 64)
        assert crop.shape == (64, 64, 3)
        assert crop[24:40, 24:40].mean() > 120


def crops_of(folder: Path, count: int) -> None:
    """Store flat crops of two colours, and grey background."""
    rng = np.random.default_rng(0)
    colours = {0: (220, 30, 30), 1: (30, 220, 30), -1: (128, 128, 128)}
    size = region_crops.STORED
    rows = []
    for row in range(count):
        label = (0, 1, -1)[row % 3]
        pixels = np.clip(np.array(colours[label]) + rng.normal(0, 20, (size, size, 3)), 0, 255).astype(np.uint8)
        rows.append((pixels, np.full((size, size), 255, np.uint8), label))
    write_shards(folder, "drawn", iter(rows))
    classes = [{"texts": ["ruby"], "colour": ""}, {"texts": ["leaf"], "colour": ""}]
    (folder / "classes.json").write_text(json.dumps({"classes": classes, "offsets": {"drawn": 0}}))


def test_shards_that_appear_later_are_read(tmp_path: Path) -> None:
    crops_of(tmp_path, 6)
    store = CropStore(tmp_path, "drawn")
    assert len(store.labels) == 6
    write_shards(tmp_path / "more", "drawn", iter([(np.zeros((96, 96, 3), np.uint8), np.zeros((96, 96), np.uint8), 0)]))
    (tmp_path / "more" / "drawn-000.npz").rename(tmp_path / "drawn-001.npz")
    store.reload()
    assert len(store.labels) == 7
    assert store[6][1] == 0


@pytest.mark.slow
def test_a_run_learns_resumes_and_serves(tmp_path: Path) -> None:
    crops_of(tmp_path / "crops", 30)
    recipe = Recipe(minutes=0.25, batch=16, warm_up=5)
    run = Run(tmp_path / "crops", tmp_path / "run", recipe)
    run.train()
    run.state.keep()
    resumed = Run(tmp_path / "crops", tmp_path / "run", recipe)
    resumed.resume()
    assert (resumed.state.step, resumed.state.spent) == (run.state.step, run.state.spent)
    assert torch.equal(resumed.model.text_projection, run.model.text_projection)
    resumed.export(tmp_path / "out")
    encoder = OpenClip(f"file:{tmp_path / 'out'}")
    assert encoder.serving.backgrounds == region_text.BACKGROUNDS
    red = np.full((1, 64, 64, 3), (220, 30, 30), np.uint8)
    ruby, leaf = (encoder.encode_images(red) @ encoder.encode_texts(["ruby", "leaf"]).T)[0]
    assert ruby > leaf
