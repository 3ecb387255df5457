"""The weights commands: list, get, verify and path."""

from __future__ import annotations

from pathlib import Path

import pytest

from segclip import weights
from tests.commands import run


def test_weights_list_shows_every_row() -> None:
    outcome = run("weights", "list")
    assert outcome.exit_code == 0
    for name in weights.manifest():
        assert name in outcome.stdout


def test_weights_get_and_path_of_missing_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path))
    monkeypatch.setenv("SEGCLIP_OFFLINE", "1")
    for arguments in (
        ["get", "fastsam-s", "--offline"],
        ["path", "fastsam-s"],
        ["verify", "fastsam-s"],
        ["get", "photo"],
    ):
        outcome = run("weights", *arguments)
        assert outcome.exit_code == 2, outcome.output
        assert "fastsam-s" in outcome.stderr
        assert len(outcome.stderr.splitlines()) == 1
    assert run("weights", "path", "fastsam-q").exit_code == 2


def test_weights_verify_detects_wrong_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path))
    path = weights.manifest()["fastsam-s"].path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not these")
    outcome = run("weights", "verify", "fastsam-s")
    assert outcome.exit_code == 2
    assert outcome.stdout.startswith("WRONG")
    assert str(path) in outcome.stderr
