"""The settings of the server, from its environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from streamlit import config

from app.settings import LOOPBACK, Settings

each = pytest.mark.parametrize


def test_without_an_environment_only_this_machine_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith("SEGCLIP_APP_")]:
        monkeypatch.delenv(name)
    assert Settings.from_environment() == Settings()
    assert Settings().alone
    assert not Settings().api


@each(
    ("field", "text", "value"),
    [
        ("words", "photo", "photo"),
        ("clicks", "sam-vit-b", "sam-vit-b"),
        ("upload_mb", "3", 3),
        ("max_pixels", "1000", 1000),
        ("works", "2", 2),
        ("kept_mb", "7", 7),
        ("batch_mb", "9", 9),
        ("photos", "/srv/photos", Path("/srv/photos")),
        ("runs", "/srv/runs", Path("/srv/runs")),
        ("source", "https://example.org", "https://example.org"),
        ("alone", "0", False),
        ("api", "1", True),
        ("hosts", "proxy.test b.test", ("proxy.test", "b.test")),
        ("scratch", "/srv/scratch", "/srv/scratch"),
    ],
)
def test_a_variable_sets_the_field_of_its_name(
    field: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"SEGCLIP_APP_{field.upper()}", text)
    assert getattr(Settings.from_environment(), field) == value
    monkeypatch.setenv(f"SEGCLIP_APP_{field.upper()}", "")
    assert Settings.from_environment() == Settings()


@each(
    ("address", "alone"),
    [*((name, True) for name in LOOPBACK), ("0.0.0.0", False), ("10.0.0.1", False)],
)
def test_a_server_that_others_reach_does_not_serve_this_machine_alone(
    address: str, alone: bool
) -> None:
    former = config.get_option("server.address")
    config.set_option("server.address", address)
    try:
        assert Settings.from_environment().alone == alone
    finally:
        config.set_option("server.address", former)
