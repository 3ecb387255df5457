"""Folders of weights that a test has for itself."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point segclip at a temporary manifest and cache, online, and past any proxy."""
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("SEGCLIP_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SEGCLIP_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
