"""Random inputs of every kind; see README.md beside."""

from __future__ import annotations

from typing import Any

# what may stand in JSON where something else is expected
WEIRD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**31,
    10**30,
    -(10**30),
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "..",
    "a\0b",
    "\ud800",
    "x" * 5000,
    "hf-hub:a/b",
    [],
    [[]],
    {},
    {"a": 1},
    [0] * 9,
    [[1, 1]] * 3,
)
