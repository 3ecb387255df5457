"""Models: loaded once for all users, used in turns."""

from __future__ import annotations

import gc
import time
from threading import Thread

import numpy as np
import pytest
import torch

import segclip
from app.answers import MOST_KEPT, answer
from app.models import Models, parts
from app.state import Studio, Work
from app.turns import Line
from tests import batch_script
from tests.app.questions import RED, boxes


def test_a_model_is_loaded_once_for_concurrent_users(studio: Studio) -> None:
    found: list[object] = []
    threads = [Thread(target=lambda: found.append(studio.models.load("mini"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


def test_the_number_of_custom_models_in_memory_is_limited(studio: Studio, work: Work) -> None:
    for number in range(9):
        work.use(words=f"mini + file:run-{number}")
        assert boxes(answer(studio.models, work).chosen) == [RED]
    assert studio.models.names == tuple(f"mini + file:run-{number}" for number in (6, 7, 8))
    assert len(work.cached.regions) == len(work.cached.encoded) == MOST_KEPT


def test_loaded_models_are_excluded_from_garbage_collection() -> None:
    gc.unfreeze()
    Models(batch_script.fake_load).load("mini")
    try:
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()


def test_quick_work_leaves_half_of_the_cores_to_others() -> None:
    before, counts = torch.get_num_threads(), []
    models = Models(batch_script.fake_load, threads=4)

    def encode() -> None:
        with models.encoding("mini"):
            counts.append(torch.get_num_threads())

    with models.quickly():
        other = Thread(target=encode)
        other.start()
        other.join()
        counts.append(torch.get_num_threads())
    counts.append(torch.get_num_threads())
    torch.set_num_threads(before)
    assert counts == [4, 2, 4]


def test_a_model_that_cannot_be_loaded_is_an_error_of_its_weights() -> None:
    """Fault 17.11: whatever its files hold, and it may be tried again."""
    errors: list[Exception] = [AssertionError("stack underflow"), segclip.WeightsMissing("gone")]

    def broken(*names: str | None) -> segclip.Segmenter:
        if errors:
            raise errors.pop(0)
        return batch_script.fake_load(*names)

    models = Models(broken)
    with pytest.raises(segclip.WeightsCorrupt, match="AssertionError"):
        models.load("mini")
    with pytest.raises(segclip.WeightsMissing, match="gone"):
        models.load("mini")
    assert models.names == ()
    assert models.load("mini") is models.load("mini")


def test_a_name_is_split_into_proposer_and_encoder() -> None:
    assert parts("mini") == ("mini", None)
    assert parts("mini-fastsam + file:a + b") == ("mini-fastsam", "file:a + b")


def test_many_texts_are_embedded_in_steps(studio: Studio) -> None:
    line, order = Line(), list[str]()
    with studio.models.embedding("mini") as segmenter:
        encoder = segmenter.encoder
    assert encoder is not None
    texts = [f"a red box {number}" for number in range(600)]
    assert encoder.encode_texts(()).shape[0] == 0

    def others() -> None:
        with line.first():
            order.append("others")

    with line.first():
        waiting = Thread(target=others)
        waiting.start()
        while len(line) < 2:
            time.sleep(0.001)
        rows = encoder.encode_texts(texts)
        order.append("all texts")
    waiting.join(20)
    assert order == ["others", "all texts"]
    wanted = batch_script.fake_load().encoder.encode_texts(texts)
    assert np.array_equal(rows, wanted)
