"""Settings and metrics of a run in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segclip.errors import BadIndex
from tests.train.engine.test_checkpoint import loop_in
from train.engine.journal import ProgressLine, read_metrics
from train.engine.loop import start


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "7"])
def test_damaged_settings_are_reported(folder: Path, text: str) -> None:
    (folder / "recipe.json").write_text(text)
    with pytest.raises(BadIndex, match=r"recipe\.json"):
        start(loop_in(folder), resume=True)


@pytest.mark.parametrize(
    "line", ["7", "{}", '{"epoch": "1", "loss": 0}', "null", "{", "[" * 100_000, "\0"]
)
def test_metrics_are_read_up_to_a_damaged_line(folder: Path, line: str) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    start(loop_in(folder), resume=True)
    assert [row["epoch"] for row in read_metrics(folder)] == [1, 2]


def test_progress_is_written_for_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    progress = ProgressLine(400, 100, file=tmp_path / "progress.json")
    clock[0] += 20
    progress.advance(100, "epoch 2/4  loss 1.500")
    assert json.loads((tmp_path / "progress.json").read_text()) == {
        "line": "epoch 2/4  loss 1.500  5 images/s  50%, 0:40 left",
        "share": 0.5,
    }
