"""What is done by hand, and what it makes of a work: without a browser."""

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
from app.state import Draft, Known, Studio, Work
from segclip.types import Image
from tests.fakes import paint

each = pytest.mark.parametrize
RED, GREEN, BLUE = (10, 10, 50, 50), (60, 20, 100, 80), (110, 60, 150, 110)


def do(studio: Studio, work: Work, **event: Any) -> Answer:
    events.handle(studio, work, event)
    return answer(studio.models, work)


def boxes(result: segclip.Result) -> list[tuple[int, ...]]:
    return [tuple(row) for row in result.masks.boxes.tolist()]


def encodings(studio: Studio, work: Work) -> int:
    return int(studio.models.load(work.words).segmenter.proposer.encoded)  # type: ignore[attr-defined]


def test_words_are_answered_as_the_library_answers_them(studio: Studio, work: Work) -> None:
    found = answer(studio.models, work)
    segmenter = studio.models.load("mini").segmenter
    wanted = segmenter(work.image, ["a red box"])
    assert boxes(found.chosen) == boxes(wanted) == [RED]
    assert np.array_equal(found.chosen.masks.full(0), wanted.masks.full(0))
    assert found.chosen.probability == wanted.probability


def test_words_and_sliders_never_look_at_the_picture_again(studio: Studio, work: Work) -> None:
    answer(studio.models, work)
    work.say(("a green box", "a blue box"))
    assert boxes(answer(studio.models, work).chosen) == [GREEN, BLUE]
    assert boxes(do(studio, work, kind="tune", threshold=0.0, top=1).chosen)[0] == GREEN
    assert do(studio, work, kind="tune", threshold=1.0, top=None).hits == 0
    assert encodings(studio, work) == 1


def test_a_slider_on_its_way_is_one_step_back(studio: Studio, work: Work) -> None:
    for threshold in (0.6, 0.7, 0.8):
        do(studio, work, kind="tune", threshold=threshold, top=None)
    do(studio, work, kind="tune", threshold=0.8, top=None)
    assert work.draft.threshold == 0.8
    do(studio, work, kind="undo")
    assert work.draft.threshold is None


def test_clicks_refine_and_undo_goes_back_step_by_step(studio: Studio, work: Work) -> None:
    before = work.draft
    assert boxes(do(studio, work, kind="point", x=70.5, y=30.5, label=1).chosen) == [GREEN]
    assert not len(do(studio, work, kind="point", x=75, y=40, label=0).chosen)
    assert boxes(do(studio, work, kind="undo").chosen) == [GREEN]
    assert boxes(do(studio, work, kind="undo").chosen) == [RED]
    assert work.draft == before
    do(studio, work, kind="undo")
    assert work.draft == before


def test_a_negative_click_among_words_leaves_out_what_lies_there(
    studio: Studio, work: Work
) -> None:
    work.say(("a red box", "a green box"))
    found = do(studio, work, kind="point", x=20, y=20, label=0)
    assert boxes(found.chosen) == [GREEN]
    assert found.unanswered == ("a red box",)
    assert boxes(do(studio, work, kind="clear").chosen) == [RED, GREEN]


def test_a_box_cuts_out_what_is_in_it(studio: Studio, work: Work) -> None:
    found = do(studio, work, kind="box", box=[105.2, 55.0, 155.0, 115.0])
    assert boxes(found.chosen) == [BLUE]
    assert work.draft.box == (105.2, 55.0, 155.0, 115.0)


def test_everything_shows_the_small_ones_on_top(studio: Studio, work: Work) -> None:
    found = do(studio, work, kind="everything")
    assert boxes(found.candidates) == [RED, BLUE, GREEN]
    assert boxes(do(studio, work, kind="take", row=2).chosen) == [GREEN]
    assert boxes(do(studio, work, kind="take", row=0).chosen) == [RED, GREEN]
    assert boxes(do(studio, work, kind="take", row=2).chosen) == [RED]


def test_everything_has_a_threshold_of_its_own(studio: Studio, work: Work) -> None:
    do(studio, work, kind="tune", threshold=0.9, top=None)
    assert do(studio, work, kind="everything").candidates.threshold == 0.4
    assert len(do(studio, work, kind="tune", threshold=0.3, top=2).candidates) == 2
    assert boxes(do(studio, work, kind="clear").chosen) == [RED]
    assert work.draft.threshold is None


def test_nothing_matches_and_the_nearest_misses_can_be_taken(studio: Studio, work: Work) -> None:
    work.say(("a black box",))
    do(studio, work, kind="tune", threshold=1.0, top=None)
    found = answer(studio.models, work)
    assert found.hits == 0
    assert not len(found.chosen)
    assert found.unanswered == ("a black box",)
    if len(found.candidates):
        assert len(do(studio, work, kind="take", row=0).chosen) == 1


def test_misses_stand_behind_the_hits(studio: Studio, picture: Image) -> None:
    work = Work(Known(picture))
    work.say(("a red box", "a box red and green"))
    found = do(studio, work, kind="tune", threshold=0.99, top=None)
    told = [(text, row >= found.hits) for row, text in enumerate(found.candidates.texts)]
    assert ("a red box", False) in told or ("a red box", True) in told
    assert all(miss for text, miss in told if text in found.unanswered)
    assert len(found.candidates) == len(found.candidates.masks) == len(found.candidates.similarity)


def test_no_words_and_an_empty_picture_are_no_errors(studio: Studio) -> None:
    work = Work(Known(paint()))
    assert answer(studio.models, work).hits == 0
    work.say(("a red box",))
    assert answer(studio.models, work).hits == 0
    assert do(studio, work, kind="everything").hits == 0
    assert not len(do(studio, work, kind="point", x=3, y=3, label=1).chosen)


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
        {"kind": "file", "name": "a.png", "content": base64.b64encode(b"no picture").decode()},
    ],
)
def test_nonsense_from_a_browser_changes_nothing(
    studio: Studio, work: Work, event: dict[str, Any]
) -> None:
    before, image = work.draft, work.image
    with pytest.raises(segclip.SegclipError):
        events.handle(studio, work, event)
    assert (work.draft, work.image) == (before, image)


def test_a_pasted_picture_is_opened_and_keeps_the_words(
    studio: Studio, work: Work, upload: bytes
) -> None:
    former = work.picture
    do(studio, work, kind="point", x=20, y=20, label=1)
    found = do(
        studio, work, kind="file", name="pasted.png", content=base64.b64encode(upload).decode()
    )
    assert work.picture != former
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


def test_works_are_apart_have_long_keys_and_the_oldest_goes_first(studio: Studio) -> None:
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


def test_a_sample_is_looked_at_once_for_everybody(studio: Studio) -> None:
    studio._samples[FIRST] = Known(paint(("red", RED)))
    _, one = studio.begin()
    _, other = studio.begin()
    answer(studio.models, one)
    answer(studio.models, other)
    assert encodings(studio, one) == 1


def test_a_model_is_loaded_once_however_many_ask(studio: Studio) -> None:
    found: list[object] = []
    threads = [Thread(target=lambda: found.append(studio.models.load("mini"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


def test_another_model_looks_anew_and_drops_the_threshold(studio: Studio, work: Work) -> None:
    events.handle(studio, work, {"kind": "tune", "threshold": 0.9})
    work.use(words="photo")
    assert work.draft.threshold is None
    answer(studio.models, work)
    assert studio.models.names == ("photo",)


def test_who_waits_long_holds_nobody_else_up(studio: Studio, picture: Image) -> None:
    work = Work(Known(picture), Draft(("a red box",)))
    answer(studio.models, work)
    do(studio, work, kind="point", x=20, y=20, label=1)
    with studio.models.look("mini"), studio.models.look("mini-sam"):  # somebody's large picture
        found: list[Answer] = []
        done = ({"kind": "undo"}, {"kind": "point", "x": 70, "y": 30, "label": 1})
        others = Thread(target=lambda: found.extend(do(studio, work, **event) for event in done))
        others.start()
        others.join(20)
        assert [boxes(one.chosen) for one in found] == [[RED], [GREEN]]


def test_what_models_of_ones_own_leave_behind_is_bounded(studio: Studio, work: Work) -> None:
    for number in range(9):
        work.use(words=f"mini + file:run-{number}")
        assert boxes(answer(studio.models, work).chosen) == [RED]
    assert studio.models.names == tuple(f"mini + file:run-{number}" for number in (6, 7, 8))
    assert len(work.known.regions) == len(work.known.encoded) == MOST_KEPT


def test_what_is_loaded_is_left_out_of_the_search_for_garbage_after_every_event(
    studio: Studio,
) -> None:
    gc.unfreeze()
    studio.models._loaded.clear()
    studio.models.load("mini")
    try:
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()


def test_what_is_quick_leaves_half_of_the_cores_and_holds_nobody_back(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, told = torch.get_num_threads(), []

    def look() -> None:
        with studio.models.look("mini"):
            told.append(torch.get_num_threads())

    monkeypatch.setattr(models, "_ALL", 4)
    with models.quickly():
        other = Thread(target=look)
        other.start()
        other.join()
        told.append(torch.get_num_threads())
    told.append(torch.get_num_threads())
    torch.set_num_threads(before)
    assert told == [4, 2, 4]
