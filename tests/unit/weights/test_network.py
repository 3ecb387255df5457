"""Offline: for what is loaded inside a block, or for a whole process."""

from __future__ import annotations

import os

import pytest

from segclip import weights


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEGCLIP_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "0")


def test_a_block_is_offline_and_what_follows_is_not() -> None:
    with weights.offline():
        assert weights.is_offline()
        with weights.offline(False):  # an inner block permits nothing that the outer one forbids
            assert weights.is_offline()
    assert not weights.is_offline()
    with weights.offline(False):
        assert not weights.is_offline()


def test_a_block_that_fails_ends_too() -> None:
    with pytest.raises(ValueError, match="no weights"), weights.offline():
        raise ValueError("no weights")
    assert not weights.is_offline()


def test_set_offline_reaches_child_libraries() -> None:
    weights.set_offline()
    assert weights.is_offline()
    assert os.environ["HF_HUB_OFFLINE"] == "1"
