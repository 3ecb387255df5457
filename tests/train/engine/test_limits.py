"""A setting out of its range is reported in one line, before any work, by every command."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from segclip.errors import BadPrompt, SegclipError
from train.contrastive import ContrastiveRecipe
from train.engine import limits
from train.engine.loop import LoopSettings
from train.engine.tuning import Tuning
from train.pacl import Grid

NEVER = (math.nan, math.inf, -math.inf, -1)


@pytest.mark.parametrize(
    ("range_", "inside", "outside"),
    [
        (limits.COUNT, (1, 10**9), (*NEVER, 0, 1.5, True, 10**30, 10**400)),
        (limits.NONE_OR_MORE, (0, 7), (*NEVER, 0.5)),
        (limits.SEED, (0, 2**63 - 1), (*NEVER, 2**63)),
        (limits.RATE, (0, 1e-9, 5, 100), (*NEVER, 101)),
        (limits.FACTOR, (0, 0.5, 1e9), NEVER),
        (limits.DECAY, (0, 0.999), (*NEVER, 1, 1.5)),
        (limits.PART, (0.01, 0.5), (*NEVER, 0, 1)),
        (limits.SHARE, (0, 1), (*NEVER, 1.01)),
        (limits.SIDE, (1, 2048), (*NEVER, 0, 100_000)),
        (limits.MINUTES, (0.1, 600), (*NEVER, 0)),
    ],
)
def test_a_range_contains_its_values_only(
    range_: limits.Range, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    for value in inside:
        assert value in range_
    for value in outside:
        assert value not in range_
        with pytest.raises(BadPrompt, match=r"^--option is .*; give a"):
            limits.check({"--option": (value, range_)})


@pytest.mark.parametrize(
    ("kind", "leave"),
    [
        (LoopSettings, {"bfloat16", "minutes"}),
        (Tuning, {"what"}),
        (Grid, set()),
        (ContrastiveRecipe, {"spread", "tuning"}),
    ],
)
def test_every_setting_has_a_range(kind: Any, leave: set[str]) -> None:
    """Fault 17.16: --lr nan, --lr -1, --batch 0, --rank 0, --seed -1, --captions-each 0 were
    tracebacks.
    """
    for field in dataclasses.fields(kind):
        if field.name not in leave:
            for value in (math.nan, -1):
                with pytest.raises(SegclipError) as raised:
                    kind(**{field.name: () if field.name == "templates" else value})
                assert "\n" not in str(raised.value)
