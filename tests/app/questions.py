"""A user's events, and the boxes of the answers, in the image of the ``work`` fixture."""

from __future__ import annotations

from typing import Any

import segclip
from app import events
from app.answers import Answer, answer
from app.state import Studio, Work

RED, GREEN, BLUE = (10, 10, 50, 50), (60, 20, 100, 80), (110, 60, 150, 110)


def send_event(studio: Studio, work: Work, **event: Any) -> Answer:
    events.handle(studio, work, event)
    return answer(studio.models, work)


def boxes(result: segclip.Result) -> list[tuple[int, ...]]:
    return [tuple(row) for row in result.masks.boxes.tolist()]


def encodings(studio: Studio, work: Work) -> int:
    return int(studio.models.load(work.words).segmenter.proposer.encoded)  # type: ignore[attr-defined]
