"""What became of text queries: right answers, misses and false answers at any threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import BadPrompt
from ..types import Array

NEAR = 0.005  # of the maximum worth: a thousand queries cannot resolve less


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The best answer to each query, whatever the threshold.

    present: float (P,), the probability of the best answer to a name of something that is there.
    is_right: bool (P,), whether it is the thing. absent: float (Q,), that to a name of something
    that is not there.
    """

    present: Array
    is_right: Array
    absent: Array

    def found(self, threshold: float) -> float:
        """Return the share of present names whose best answer is right and at the threshold."""
        return mean(self.is_right & (self.present >= threshold))

    def silent(self, threshold: float) -> float:
        """Return the share of absent names that return nothing."""
        return mean(self.absent < threshold)

    def worth(self, threshold: float) -> float:
        """Return 2 x found + silent: a miss counts twice a false answer, which the user notices."""
        return 2 * self.found(threshold) + self.silent(threshold)

    @property
    def fits(self) -> bool:
        """Whether a threshold can be fitted: there are queries for present and absent names."""
        return bool(len(self.present) and len(self.absent))

    def fit(self) -> float:
        """Return the threshold that answers best; see ``fit_threshold``."""
        return fit_threshold([self])


def fit_threshold(outcomes: Sequence[Outcomes]) -> float:
    """Return the lowest threshold whose mean ``worth`` is near the maximum.

    Near means within ``NEAR``; the exact maximum is chance. Rounded down to four places, so that
    the probability it came from still reaches it. Raises BadPrompt where ``fits`` is False.
    """
    if not all(one.fits for one in outcomes):
        raise BadPrompt(
            "fitting a threshold takes names that are in the images and names that are not; one "
            "kind is missing"
        )
    levels = np.unique(np.concatenate([[*one.present, *one.absent] for one in outcomes]))
    worth = np.array([np.mean([one.worth(level) for one in outcomes]) for level in levels])
    lowest = float(levels[worth >= worth.max() - NEAR][0])
    return math.floor(lowest * 1e4) / 1e4


def mean(values: Array | Sequence[float] | Sequence[bool]) -> float:
    """Return the mean, NaN of nothing."""
    return float(np.mean(values)) if len(values) else float("nan")
