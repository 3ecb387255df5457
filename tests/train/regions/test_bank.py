"""The texts of each class, and those that are neither right nor wrong for it."""

from __future__ import annotations

import numpy as np

from train.regions.bank import Bank
from train.regions.crop_store import Class

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
