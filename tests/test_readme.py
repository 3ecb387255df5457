"""Run what the README tells people to type; blocks behind ``<!-- test: skip (why) -->`` install or
download.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import segclip

from . import api_page

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
_BLOCK = re.compile(
    r"(?P<skip><!-- test: skip \([^)]+\) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
RUNNABLE = [match for match in _BLOCK.finditer(README) if not match["skip"]]


def _line(match: re.Match[str]) -> int:
    return README.count("\n", 0, match.start("code")) + 1


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Stand beside a copy of the samples, as in a fresh clone."""
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    return tmp_path


@pytest.mark.parametrize("block", RUNNABLE, ids=lambda match: f"line-{_line(match)}")
def test_a_block_of_the_readme_runs(block: re.Match[str], clone: Path) -> None:
    shell = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SEGCLIP_OFFLINE": "1",
        "SEGCLIP_HOME": str(clone / "home"),  # where it adds and removes a concept
    }
    command = [*shell[block["language"]], block["code"]]
    process = subprocess.run(
        command,
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "wrote " in process.stdout or (clone / "desk.overlay.png").is_file()


def test_both_languages_are_shown_and_run() -> None:
    assert {match["language"] for match in RUNNABLE} == {"bash", "python"}


def test_every_file_the_readme_links_to_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_reference_has_every_public_name_with_its_current_signature() -> None:
    grouped = [name for names in api_page.GROUPS.values() for name in names]
    assert sorted(grouped) == segclip.__all__
    assert api_page.PAGE.read_text("utf-8") == api_page.write(), "run python -m tests.api_page"


def test_nothing_is_left_to_fill_in() -> None:
    assert "FILL" not in README
