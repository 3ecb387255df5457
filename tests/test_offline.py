"""Offline means zero sockets: the whole command, watched by Python's audit hook and by the kernel's
own trace.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WATCHED = """
import sys
def watch(event, details):
    names = ("connect", "getaddrinfo", "gethostbyname", "sendto", "bind")
    if event in ["socket." + name for name in names]:
        print("NETWORK", event, details, file=sys.stderr)
sys.addaudithook(watch)
from segclip.cli.main import app
app(sys.argv[1:], prog_name="segclip")
"""
COMMAND = ["segment", str(ROOT / "samples" / "desk.png"), "red apple", "--offline"]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "SEGCLIP_HOME": str(home / "home")}


@pytest.mark.slow
def test_python_opens_no_connection(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WATCHED, *COMMAND, "--out", str(tmp_path)]
    process = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "NETWORK" not in process.stderr
    assert "red apple" in process.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_kernel_sees_no_connection(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    command = [
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=network",
        "-o",
        str(trace),
        sys.executable,
        "-m",
        "segclip",
        *COMMAND,
    ]
    process = subprocess.run(
        [*command, "--out", str(tmp_path)],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    calls = [line for line in trace.read_text().splitlines() if re.search(r"AF_INET6?\b", line)]
    connections = [line for line in calls if re.search(r"\b(connect|sendto|sendmsg|bind)\(", line)]
    assert [line for line in connections if "127.0.0.1" not in line and '"::1"' not in line] == []
