"""Answers to questions about an image, and what is computed again for them."""

from __future__ import annotations

from threading import Thread

import numpy as np

from app.answers import Answer, answer
from app.state import CachedImage, Draft, Studio, Work
from segclip.types import Image
from tests.app.questions import BLUE, GREEN, RED, boxes, encodings, send_event
from tests.fakes import paint


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
