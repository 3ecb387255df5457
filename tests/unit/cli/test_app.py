from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.models import parts
from app.settings import Settings
from segclip.cli import main as cli

ROOT = Path(__file__).parents[3]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """Record the command and environment instead of starting a server."""
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(
        os, "execve", lambda path, command, environment: started.append((command, environment))
    )
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0)
    )
    return started


def run(*arguments: str) -> Any:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return CliRunner().invoke(cli.app, ["app", "--port", str(port), *arguments])


def test_default_is_loopback_without_telemetry(
    started: list[tuple[list[str], dict[str, str]]],
) -> None:
    assert run("--no-browser").exit_code == 0
    ((command, environment),) = started
    assert command[:4] == [sys.executable, "-m", "streamlit", "run"]
    assert Path(command[4]) == ROOT / "app" / "server.py"
    assert {
        "--server.address=127.0.0.1",
        "--browser.gatherUsageStats=false",
        "--server.headless=true",
    } <= {*command}
    assert environment["SEGCLIP_APP_ALONE"] == environment["SEGCLIP_CONCEPT_FILES"] == "1"
    assert environment["SEGCLIP_APP_API"] == "0"


def test_options_reach_the_server(
    started: list[tuple[list[str], dict[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi")
    options = (
        "--api",
        "--host",
        "0.0.0.0",
        "--preset",
        "photo",
        "--photos",
        str(tmp_path),
        "--upload-mb",
        "3",
    )
    assert run(*options, "--offline").exit_code == 0
    ((command, environment),) = started
    assert Path(command[4]).name == "server.py"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environment()
    assert (settings.words, settings.photos, settings.upload_mb, settings.alone) == (
        "photo",
        tmp_path,
        3,
        False,
    )
    assert environment["SEGCLIP_OFFLINE"] == "1"
    assert environment["SEGCLIP_CONCEPT_FILES"] == "0"


def test_encoder_option_accepts_a_training_run(
    started: list[tuple[list[str], dict[str, str]]], tmp_path: Path
) -> None:
    assert run("--encoder", f"file:{tmp_path}", "--no-browser").exit_code == 0
    ((_, environment),) = started
    assert environment["SEGCLIP_APP_WORDS"] == f"mini-fastsam + file:{tmp_path}"
    assert parts(environment["SEGCLIP_APP_WORDS"]) == ("mini-fastsam", f"file:{tmp_path}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "maxi"], "unknown preset 'maxi'"),
        (["--clicks", "maxi"], "unknown preset 'maxi'"),
        (["--encoder", "file:nowhere"], "nowhere"),
        (["--photos", "nowhere"], "no such folder"),
        (["--host", "300.1.1.1"], "cannot listen there"),  # fault 17.12
        (["--host", "192.0.2.1"], "cannot listen there"),  # a documentation address
        (["--host", "a..b"], "cannot listen there"),
        (["--host", "h" * 300], "cannot listen there"),
        (["--host", "\udcff"], "cannot listen there"),
    ],
)
def test_bad_server_options_are_reported(
    started: list[tuple[list[str], dict[str, str]]], options: list[str], message: str
) -> None:
    done = run(*options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert started == []


def test_api_without_fastapi_names_the_extra_to_install(
    started: list[tuple[list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)  # as if it were not installed
    done = run("--api")
    assert done.exit_code == 2
    assert "pip install 'segclip[api]'" in done.stderr
    assert started == []
