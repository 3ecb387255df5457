"""The head that ships: its initialisation, what it learns from candidates, and serving."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F

from segclip.encoders import checkpoints
from train.region_features import FeatureTable
from train.region_head import (
    EmbeddedTexts,
    Pooled,
    RegionHeadRecipe,
    RegionHeadRun,
    pool,
)
from train.region_text import last_layers
from train.regions.bank import Bank
from train.regions.crop_store import UNLABELLED, WRONG, Class
from train.regions.feed import RegionFeed
from train.regions.head import widen
from train.regions.model import MODEL
from train.text_distill import embed

CLASSES = [
    Class(("dog",), group="photo"),
    Class(("cup",), group="photo"),
    Class(("ruby",), group="drawn"),
    Class(("tench",), group="imagenet"),
    Class(("goldfish",), group="imagenet"),
]


def table(folder: Path, labels: list[int]) -> FeatureTable:
    made = FeatureTable(folder, "drawn", len(labels))
    made.features[:] = np.random.default_rng(0).normal(size=made.features.shape).astype(np.float16)
    made.labels[:], made.likeliest[:], made.chances[:] = labels, -1, 0
    made.done(len(labels))
    return FeatureTable(folder, "drawn")


def test_pooled_features_are_those_of_the_whole_tower(tmp_path: Path) -> None:
    model = checkpoints.make_model(MODEL).eval()
    stored = table(tmp_path, [0, 1, 2])
    with torch.inference_mode():
        wanted = last_layers(model.visual, torch.from_numpy(np.array(stored.features)).float())
        pooled = pool(model.visual, stored, batch=2).float()
        assert torch.allclose(model.visual.head(pooled), wanted, atol=2e-2)
    assert not pool(model.visual, stored).is_inference()  # it is trained on


def test_texts_are_embedded_as_serving_does() -> None:
    torch.manual_seed(0)
    model, bank = checkpoints.make_model(MODEL).eval(), Bank.build(CLASSES)
    sentences = ("{}", "a photo of a {}")
    texts = EmbeddedTexts.embed(model, bank, CLASSES, sentences)
    tokenizer = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])
    with torch.no_grad():
        wanted = embed(model, tokenizer(["dog", "a photo of a dog"])).mean(dim=0)
    assert torch.allclose(texts.names[0], F.normalize(wanted, dim=-1), atol=1e-5)
    assert torch.allclose(texts.bank[bank.texts.index("dog")], texts.names[0], atol=1e-5)
    assert not texts.bank.is_inference()


def test_a_candidate_is_wrong_for_what_labels_could_name_alone() -> None:
    torch.manual_seed(0)
    bank = Bank.build(CLASSES)
    rows = F.normalize(torch.randn(len(bank.texts), 8), dim=-1).requires_grad_()
    texts = EmbeddedTexts(rows, torch.randn(2, 8), torch.randn(5, 8), 10.0)
    images, nothing = F.normalize(torch.randn(1, 8), dim=-1), torch.full((1, 16), -1)
    small_run(texts, bank)._region_loss(
        images, torch.tensor([WRONG]), nothing, torch.zeros(1, 16)
    ).backward()
    assert rows.grad is not None
    moved = {
        text for text, row in zip(bank.texts, rows.grad, strict=True) if row.abs().max() > 1e-6
    }
    assert moved
    assert moved <= {"dog", "dogs", "cup", "cups"}


def small_run(texts: EmbeddedTexts, bank: Bank) -> RegionHeadRun:
    mlp = torch.nn.Module()
    mlp.fc1, mlp.fc2 = torch.nn.Linear(16, 8), torch.nn.Linear(8, 8, bias=False)
    head = widen(mlp, torch.nn.Linear(16, 2), torch.randn(2, 8), torch.randn(9, 16), 12)
    return RegionHeadRun(head, texts, bank, CLASSES, np.array([0, 1]), RegionHeadRecipe())


def test_a_head_learns_what_is_wrong(tmp_path: Path) -> None:
    """Wrong crops end below the backgrounds for "dog", dogs above."""
    torch.manual_seed(0)
    bank = Bank.build(CLASSES)
    axes = {kind.texts[0]: torch.eye(8)[row] for row, kind in enumerate(CLASSES)}
    bank_rows = torch.stack([axes[CLASSES[int(np.argmax(means))].texts[0]] for means in bank.means])
    texts = EmbeddedTexts(
        bank_rows, torch.eye(8)[5:7], torch.stack([axes[kind.texts[0]] for kind in CLASSES]), 10.0
    )
    mlp = torch.nn.Module()
    mlp.fc1, mlp.fc2 = torch.nn.Linear(16, 8), torch.nn.Linear(8, 8, bias=False)
    features = torch.cat(
        [torch.randn(60, 16) * 0.1 + torch.eye(16)[0], torch.randn(60, 16) * 0.1 + torch.eye(16)[1]]
    )
    head = widen(mlp, torch.nn.Linear(16, 2), texts.names[3:], features, 12)
    stored = table(tmp_path, [0] * 60 + [WRONG] * 60)
    source = Pooled(RegionFeed(stored, np.random.default_rng(0)), features.half())
    recipe = replace(RegionHeadRecipe(), steps=150, batch=60, lr=0.02, warm_up=5, ema=0.5)
    trained = RegionHeadRun(head, texts, bank, CLASSES, np.array([0, 1]), recipe).learn(
        {"proposed": source}
    )
    images = F.normalize(trained(features), dim=-1).detach()
    dog, backgrounds = images @ texts.names[0], (images @ texts.backgrounds.T).amax(dim=1)
    assert (dog[:60] > backgrounds[:60]).float().mean() > 0.9
    assert (dog[60:] < backgrounds[60:]).float().mean() > 0.9


def test_a_crop_without_a_name_counts_where_the_teacher_is_sure(tmp_path: Path) -> None:
    bank = Bank.build(CLASSES)
    texts = EmbeddedTexts(
        torch.randn(len(bank.texts), 8), torch.randn(2, 8), torch.randn(5, 8), 10.0
    )
    run = small_run(texts, bank)
    images = F.normalize(torch.randn(2, 8), dim=-1)
    labels = torch.tensor([0, UNLABELLED])
    likeliest = torch.zeros(2, 16, dtype=torch.long)
    unsure, sure = torch.full((2, 16), 0.06), torch.tensor([[0.9] + [0.0] * 15] * 2)
    for rng in (0, 1):
        run.rng = np.random.default_rng(rng)
        alone = run._region_loss(images[:1], labels[:1], likeliest[:1], unsure[:1])
        run.rng = np.random.default_rng(rng)
        assert torch.equal(run._region_loss(images, labels, likeliest, unsure), alone)
        run.rng = np.random.default_rng(rng)
        assert not torch.equal(run._region_loss(images, labels, likeliest, sure), alone)
