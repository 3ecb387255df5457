"""User events and their effect on a work, without a browser."""

from __future__ import annotations

import base64
import gc
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

import segclip
from app import events, models
from app.answers import MOST_KEPT, Answer, answer
from app.samples import FIRST
from app.settings import Settings
from app.state import CachedImage, Draft, Studio, Work
from segclip.types import Image
from tests.fakes import paint

each = pytest.mark.parametrize
RED, GREEN, BLUE = (10, 10, 50, 50), (60, 20, 100, 80), (110, 60, 150, 110)


def send_event(studio: Studio, work: Work, **event: Any) -> Answer:
    events.handle(studio, work, event)
    return answer(studio.models, work)


def boxes(result: segclip.Result) -> list[tuple[int, ...]]:
    return [tuple(row) for row in result.masks.boxes.tolist()]


def encodings(studio: Studio, work: Work) -> int:
    return int(studio.models.load(work.words).segmenter.proposer.encoded)  # type: ignore[attr-defined]


def test_texts_give_the_librarys_results(studio: Studio, work: Work) -> None:
    found = answer(studio.models, work)
    segmenter = studio.models.load("mini").segmenter
    wanted = segmenter(work.image, ["a red box"])
    assert boxes(found.chosen) == boxes(wanted) == [RED]
    assert np.array_equal(found.chosen.masks.full(0), wanted.masks.full(0))
    assert found.chosen.probability == wanted.probability


def test_texts_and_sliders_never_encode_the_image_again(studio: Studio, work: Work) -> None:
    answer(studio.models, work)
    work.set_texts(("a green box", "a blue box"))
    assert boxes(answer(studio.models, work).chosen) == [GREEN, BLUE]
    assert boxes(send_event(studio, work, kind="tune", threshold=0.0, top=1).chosen)[0] == GREEN
    assert send_event(studio, work, kind="tune", threshold=1.0, top=None).hits == 0
    assert encodings(studio, work) == 1


def test_consecutive_slider_moves_are_one_undo_step(studio: Studio, work: Work) -> None:
    for threshold in (0.6, 0.7, 0.8):
        send_event(studio, work, kind="tune", threshold=threshold, top=None)
    send_event(studio, work, kind="tune", threshold=0.8, top=None)
    assert work.draft.threshold == 0.8
    send_event(studio, work, kind="undo")
    assert work.draft.threshold is None


def test_clicks_refine_and_undo_goes_back_step_by_step(studio: Studio, work: Work) -> None:
    before = work.draft
    assert boxes(send_event(studio, work, kind="point", x=70.5, y=30.5, label=1).chosen) == [GREEN]
    assert not len(send_event(studio, work, kind="point", x=75, y=40, label=0).chosen)
    assert boxes(send_event(studio, work, kind="undo").chosen) == [GREEN]
    assert boxes(send_event(studio, work, kind="undo").chosen) == [RED]
    assert work.draft == before
    send_event(studio, work, kind="undo")
    assert work.draft == before


def test_a_background_click_with_texts_excludes_the_object(studio: Studio, work: Work) -> None:
    work.set_texts(("a red box", "a green box"))
    found = send_event(studio, work, kind="point", x=20, y=20, label=0)
    assert boxes(found.chosen) == [GREEN]
    assert found.unanswered == ("a red box",)
    assert boxes(send_event(studio, work, kind="clear").chosen) == [RED, GREEN]


def test_a_box_segments_the_object_inside(studio: Studio, work: Work) -> None:
    found = send_event(studio, work, kind="box", box=[105.2, 55.0, 155.0, 115.0])
    assert boxes(found.chosen) == [BLUE]
    assert work.draft.box == (105.2, 55.0, 155.0, 115.0)


def test_everything_draws_small_objects_on_top(studio: Studio, work: Work) -> None:
    found = send_event(studio, work, kind="everything")
    assert boxes(found.candidates) == [RED, BLUE, GREEN]
    assert boxes(send_event(studio, work, kind="take", row=2).chosen) == [GREEN]
    assert boxes(send_event(studio, work, kind="take", row=0).chosen) == [RED, GREEN]
    assert boxes(send_event(studio, work, kind="take", row=2).chosen) == [RED]


def test_everything_has_its_own_threshold(studio: Studio, work: Work) -> None:
    send_event(studio, work, kind="tune", threshold=0.9, top=None)
    assert send_event(studio, work, kind="everything").candidates.threshold == 0.4
    assert len(send_event(studio, work, kind="tune", threshold=0.3, top=2).candidates) == 2
    assert boxes(send_event(studio, work, kind="clear").chosen) == [RED]
    assert work.draft.threshold is None


def test_near_misses_can_be_selected(studio: Studio, work: Work) -> None:
    work.set_texts(("a black box",))
    send_event(studio, work, kind="tune", threshold=1.0, top=None)
    found = answer(studio.models, work)
    assert found.hits == 0
    assert not len(found.chosen)
    assert found.unanswered == ("a black box",)
    if len(found.candidates):
        assert len(send_event(studio, work, kind="take", row=0).chosen) == 1


def test_near_misses_follow_the_matches(studio: Studio, sample_image: Image) -> None:
    work = Work(CachedImage(sample_image))
    work.set_texts(("a red box", "a box red and green"))
    found = send_event(studio, work, kind="tune", threshold=0.99, top=None)
    misses = [(text, row >= found.hits) for row, text in enumerate(found.candidates.texts)]
    assert ("a red box", False) in misses or ("a red box", True) in misses
    assert all(miss for text, miss in misses if text in found.unanswered)
    assert len(found.candidates) == len(found.candidates.masks) == len(found.candidates.similarity)


def test_no_texts_and_an_empty_image_are_no_errors(studio: Studio) -> None:
    work = Work(CachedImage(paint()))
    assert answer(studio.models, work).hits == 0
    work.set_texts(("a red box",))
    assert answer(studio.models, work).hits == 0
    assert send_event(studio, work, kind="everything").hits == 0
    assert not len(send_event(studio, work, kind="point", x=3, y=3, label=1).chosen)


@each(
    "event",
    [
        {},
        {"kind": "explode"},
        {"kind": "__class__"},
        {"kind": "point", "x": -1, "y": 3},
        {"kind": "point", "x": 160, "y": 3},
        {"kind": "point", "x": "3", "y": 3},
        {"kind": "point", "x": float("nan"), "y": 3},
        {"kind": "point", "x": True, "y": 3},
        {"kind": "box", "box": [1, 2, 3]},
        {"kind": "box", "box": [5, 5, 5, 9]},
        {"kind": "box", "box": [0, 0, 161, 20]},
        {"kind": "tune", "threshold": 2},
        {"kind": "tune", "threshold": 0.5, "top": 0},
        {"kind": "take", "row": None},
        {"kind": "file", "name": "a.png", "content": "###"},
        {"kind": "file", "name": "a.png", "content": base64.b64encode(b"no image").decode()},
    ],
)
def test_invalid_events_change_nothing(studio: Studio, work: Work, event: dict[str, Any]) -> None:
    before, image = work.draft, work.image
    with pytest.raises(segclip.SegclipError):
        events.handle(studio, work, event)
    assert (work.draft, work.image) == (before, image)


def test_a_pasted_image_is_opened_and_keeps_the_texts(
    studio: Studio, work: Work, upload: bytes
) -> None:
    former = work.image_id
    send_event(studio, work, kind="point", x=20, y=20, label=1)
    found = send_event(
        studio, work, kind="file", name="pasted.png", content=base64.b64encode(upload).decode()
    )
    assert work.image_id != former
    assert work.image.source == "pasted.png"
    assert boxes(found.chosen) == [RED]
    assert not work.history


def test_uploads_are_limited(studio: Studio, upload: bytes) -> None:
    with pytest.raises(segclip.BadImage, match="at most 20 MB"):
        studio.read(bytes(20_000_001), "big.png")
    with pytest.raises(segclip.BadImage, match="truncated"):
        studio.read(upload[: len(upload) // 2], "cut.png")
    with pytest.raises(segclip.BadImage, match="over the limit"):
        Studio(Settings(max_pixels=1000)).read(upload, "large.png")


def test_works_are_separate_have_long_keys_and_the_oldest_is_evicted(studio: Studio) -> None:
    first, one = studio.begin()
    second, other = studio.begin()
    one.click(10, 10, 1)
    assert other.draft.points == ()
    assert studio.find(first) is one
    assert min(len(first), len(second)) >= 20
    assert studio.find("guess") is None
    for _ in range(studio.settings.works - 1):
        studio.begin()
    assert len(studio) == studio.settings.works
    assert studio.find(first) is one
    assert studio.find(second) is None


def test_a_sample_is_encoded_once_for_all_users(studio: Studio) -> None:
    studio._samples[FIRST] = CachedImage(paint(("red", RED)))
    _, one = studio.begin()
    _, other = studio.begin()
    answer(studio.models, one)
    answer(studio.models, other)
    assert encodings(studio, one) == 1


def test_a_model_is_loaded_once_for_concurrent_users(studio: Studio) -> None:
    found: list[object] = []
    threads = [Thread(target=lambda: found.append(studio.models.load("mini"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


def test_another_model_encodes_again_and_resets_the_threshold(studio: Studio, work: Work) -> None:
    events.handle(studio, work, {"kind": "tune", "threshold": 0.9})
    work.use(words="photo")
    assert work.draft.threshold is None
    answer(studio.models, work)
    assert studio.models.names == ("photo",)


def test_encoding_a_large_image_does_not_block_other_work(
    studio: Studio, sample_image: Image
) -> None:
    work = Work(CachedImage(sample_image), Draft(("a red box",)))
    answer(studio.models, work)
    send_event(studio, work, kind="point", x=20, y=20, label=1)
    with (
        studio.models.encoding("mini"),
        studio.models.encoding("mini-sam"),
    ):  # someone's large image
        found: list[Answer] = []
        done = ({"kind": "undo"}, {"kind": "point", "x": 70, "y": 30, "label": 1})
        others = Thread(
            target=lambda: found.extend(send_event(studio, work, **event) for event in done)
        )
        others.start()
        others.join(20)
        assert [boxes(one.chosen) for one in found] == [[RED], [GREEN]]


def test_the_number_of_custom_models_in_memory_is_limited(studio: Studio, work: Work) -> None:
    for number in range(9):
        work.use(words=f"mini + file:run-{number}")
        assert boxes(answer(studio.models, work).chosen) == [RED]
    assert studio.models.names == tuple(f"mini + file:run-{number}" for number in (6, 7, 8))
    assert len(work.cached.regions) == len(work.cached.encoded) == MOST_KEPT


def test_loaded_models_are_excluded_from_garbage_collection(
    studio: Studio,
) -> None:
    gc.unfreeze()
    studio.models._loaded.clear()
    studio.models.load("mini")
    try:
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()


def test_quick_work_leaves_half_of_the_cores_to_others(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, counts = torch.get_num_threads(), []

    def encode() -> None:
        with studio.models.encoding("mini"):
            counts.append(torch.get_num_threads())

    monkeypatch.setattr(models, "_ALL", 4)
    with models.quickly():
        other = Thread(target=encode)
        other.start()
        other.join()
        counts.append(torch.get_num_threads())
    counts.append(torch.get_num_threads())
    torch.set_num_threads(before)
    assert counts == [4, 2, 4]
