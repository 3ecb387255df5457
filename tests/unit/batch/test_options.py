"""Options of a run are checked when they are made; progress and rate are counted."""

from __future__ import annotations

import pytest

from segclip.batch.options import Progress, Running
from segclip.errors import BadPrompt, UnknownName


def test_misuse_is_refused_before_any_run() -> None:
    with pytest.raises(BadPrompt, match="3/8"):
        Running(part="9/8")
    with pytest.raises(UnknownName, match="slurm"):
        Running(runner="slurm")
    with pytest.raises(BadPrompt, match="at least 1, got 0"):
        Running(workers=0)


def test_progress_counts_this_run_alone() -> None:
    progress = Progress(total=9, before=4, matched=2, empty=1, failed=1)
    progress.started -= 8
    assert progress.now == 4
    assert progress.rate == pytest.approx(0.5, rel=0.1)
