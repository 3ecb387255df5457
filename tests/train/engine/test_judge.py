"""Recall on held-out images counts what it should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.engine.judge import examples, in_chunks, recalls


def test_recall_counts_the_best_right_text_and_ties_as_misses() -> None:
    right = np.array([[True, True, False], [False, False, True]])
    perfect = np.array([[0.1, 0.9, 0.2], [0.3, 0.2, 0.8]])
    assert recalls(perfect, right)["image to text R@1"] == 1
    assert recalls(perfect, right)["text to image R@1"] == pytest.approx(2 / 3)
    assert recalls(np.ones((2, 3)), right)["R@1"] == 0, "constant embeddings find nothing"


def test_chunks_make_the_whole() -> None:
    rows = torch.arange(10.0)[:, None]
    assert np.array_equal(in_chunks(lambda part: 2 * part, rows, size=3), 2 * rows.numpy())


def test_examples_are_drawn_for_fewer_images_than_columns() -> None:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    sheet = examples(pixels, ["a", "b"], np.eye(2), np.eye(2, dtype=bool))
    assert sheet.width > sheet.height / 2 > 0
