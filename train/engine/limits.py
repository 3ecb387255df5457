"""Valid ranges of settings, checked before any work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from segclip.errors import BadPrompt


@dataclass(frozen=True)
class Range:
    """The valid values of a setting. whole: integers only. above: ``least`` itself is excluded."""

    least: float
    most: float = math.inf
    whole: bool = False
    above: bool = False

    def __contains__(self, value: float) -> bool:
        low = value > self.least if self.above else value >= self.least  # False for NaN
        kind = (
            isinstance(value, int)
            if self.whole
            else isinstance(value, int | float) and abs(value) < 1e300
        )
        return low and value <= self.most and kind and not isinstance(value, bool)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"above {self.least:g}" if self.above else f"of {self.least:g} or more"
        return f"{kind} {low}" + ("" if math.isinf(self.most) else f", {self.most:.12g} at most")


COUNT = Range(1, 10**9, whole=True)
NONE_OR_MORE = Range(0, 10**9, whole=True)
SEED = Range(0, 2**63 - 1, whole=True)
FEW = Range(1, 1000, whole=True)
SIDE = Range(1, 2048, whole=True)  # px; batches of larger images do not fit in memory
SIDE_OR_OWN = Range(0, 2048, whole=True)
POSITIVE = Range(0, above=True)
DECAY = Range(0, 0.999999)
RATE = Range(0, 100)
FACTOR = Range(0)
SHARE = Range(0, 1)
TOKENS = Range(3, 100_000, whole=True)  # including the start and end tokens
WIDTH = Range(1, 65_536, whole=True)
PART = Range(0, 0.99, above=True)
MINUTES = Range(0, 1e6, above=True)


def check(settings: Mapping[str, tuple[float, Range]]) -> None:
    """Check settings, by the names of their options, against their ranges; raises BadPrompt."""
    for name, (value, range_) in settings.items():
        if value not in range_:
            raise BadPrompt(f"{name} is {value}; give {range_}")
