"""The table of encoders, and what a checkpoint is served with."""

from __future__ import annotations

import json

from segclip.encoders import ENCODERS, Serving
from segclip.encoders.openclip import OpenClip
from segclip.registry import resolve
from tests.small_clip import SERVING


def test_the_table_names_the_class() -> None:
    assert resolve(ENCODERS, "openclip", "encoder") is OpenClip


def test_serving_survives_json() -> None:
    assert Serving.from_dict(json.loads(json.dumps(SERVING.to_dict()))) == SERVING
    assert Serving.from_dict({}) == Serving()
    assert not Serving().calibrated
