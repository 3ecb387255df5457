"""Outcomes of queries at a threshold."""

from __future__ import annotations

import numpy as np
import pytest

from segclip.errors import BadPrompt
from segclip.ranking.outcomes import Outcomes, fit_threshold, mean


def outcomes(present: list[float], right: list[bool], absent: list[float]) -> Outcomes:
    return Outcomes(np.array(present), np.array(right, bool), np.array(absent))


def test_found_counts_right_answers_and_silent_absent_names_below_the_threshold() -> None:
    some = outcomes([0.9, 0.8, 0.2], [True, False, True], [0.1, 0.5])
    assert some.found(0.5) == pytest.approx(1 / 3)
    assert some.found(0.1) == pytest.approx(2 / 3)
    assert some.silent(0.5) == 0.5
    assert some.worth(0.5) == pytest.approx(2 / 3 + 0.5)


def test_a_threshold_separates_and_is_shared_by_several_measurements() -> None:
    low = outcomes([0.3, 0.4], [True, True], [0.1, 0.2])
    high = outcomes([0.8, 0.9], [True, True], [0.25, 0.1])
    assert low.fit() == pytest.approx(0.3)
    assert fit_threshold([low, high]) == pytest.approx(0.3)


def test_one_kind_of_query_fits_nothing() -> None:
    with pytest.raises(BadPrompt, match="one kind is missing"):
        outcomes([0.5], [True], []).fit()
    assert not outcomes([], [], [0.1]).fits


def test_the_mean_of_nothing_is_unknown() -> None:
    assert np.isnan(mean([]))
