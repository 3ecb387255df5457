"""A browser's events: valid ones change the question, invalid ones nothing."""

from __future__ import annotations

import base64
from typing import Any

import pytest

import segclip
from app import events
from app.state import Studio, Work
from tests.app.questions import GREEN, RED, boxes, send_event

each = pytest.mark.parametrize


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
