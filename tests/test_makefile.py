"""The Makefile builds its environment with a Python that will do, and anew where the one there is
of another.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="this system has no make")
FAKE = """#!/bin/sh
case "$*" in
*sys.version_info*) [ {version} = 3.10 ] || echo {version};;
"-m venv "*)
  mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" && cp "$0" "$3/bin/python" && echo "MADE {version}";;
esac
"""


def fake_python(place: Path, version: str) -> Path:
    """Write a stand-in for a Python, which makes environments that hold itself."""
    path = place / f"python{version}"
    path.write_text(FAKE.format(version=version))
    path.chmod(0o755)
    return path


def make(place: Path, python: Path) -> subprocess.CompletedProcess[str]:
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy2(ROOT / name, place / name)
    command = ["make", "venv", f"PYTHON={python}"]
    return subprocess.run(
        command, cwd=place, capture_output=True, text=True, timeout=60, check=False
    )


def test_an_environment_of_another_python_is_made_anew(tmp_path: Path) -> None:
    """Fault 17.25."""
    first, second, old = (fake_python(tmp_path, version) for version in ("3.11", "3.12", "3.10"))
    assert "MADE 3.11" in make(tmp_path, first).stdout
    assert (tmp_path / ".venv" / "dev").is_file()
    assert "MADE" not in make(tmp_path, first).stdout
    (tmp_path / ".venv" / "left").touch()
    assert "MADE 3.12" in make(tmp_path, second).stdout
    assert not (tmp_path / ".venv" / "left").exists()
    assert (tmp_path / ".venv" / "dev").is_file()
    assert "MADE" not in make(tmp_path, old).stdout  # the one that is there will do
    (tmp_path / ".venv" / "bin" / "python").unlink()
    (tmp_path / ".venv" / "bin" / "python").symlink_to(tmp_path / "gone")
    assert "MADE 3.11" in make(tmp_path, first).stdout


def test_a_python_that_is_too_old_is_refused_and_nobodys_folder_is_removed(tmp_path: Path) -> None:
    """Fault 17.25."""
    refused = make(tmp_path, fake_python(tmp_path, "3.10"))
    assert refused.returncode != 0
    assert "segclip needs Python 3.11 or newer" in refused.stdout
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "precious").touch()
    refused = make(tmp_path, fake_python(tmp_path, "3.12"))
    assert refused.returncode != 0
    assert (tmp_path / ".venv" / "precious").exists()


def test_the_least_python_is_the_same_everywhere() -> None:
    """Fault 17.25: 3.10 was promised and could not be installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["requires-python"] == ">=3.11"
    assert project["tool"]["ruff"]["target-version"] == "py311"
    assert project["tool"]["mypy"]["python_version"] == "3.11"
    for name in ("Makefile", "README.md", "CONTRIBUTING.md"):
        found = re.findall(
            r"(?i)python3? ?\(?(3\.\d+)(?: or newer)", (ROOT / name).read_text("utf-8")
        )
        assert set(found) <= {"3.11"}, name
    assert "3, 10" not in (ROOT / "Makefile").read_text("utf-8")
