"""Damage COCO files by seed: evaluating and training read them well or refuse them in a line, and
nothing crashes.

SEGCLIP_FUZZ_EXAMPLES says how many are tried, SEGCLIP_FUZZ_SEED from which seed on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = int(os.environ.get("SEGCLIP_FUZZ_EXAMPLES", "60"))
SEED = int(os.environ.get("SEGCLIP_FUZZ_SEED", "17"))


def run(folder: Path, seed: int, count: int) -> int:
    """Read ``count`` damaged files in a process of their own; return how many were sound all the
    same.
    """
    command = [sys.executable, "-m", "tests.fuzz.coco_script", str(folder), str(seed), str(count)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=540, check=False
    )
    place = folder / "seed"
    at = place.read_text() if place.exists() else "none"
    assert done.returncode == 0, f"seed {at} ended with {done.returncode}:\n{done.stderr[-3000:]}"
    return int(done.stdout.split()[-1])


def test_a_file_that_is_not_damaged_is_read(tmp_path: Path) -> None:
    assert run(tmp_path / "data", 0, 1) == 1


@pytest.mark.timeout(600)
def test_damaged_coco_files_are_read_or_refused(tmp_path: Path) -> None:
    """Fault 17.17c: tracebacks, and a process ended by signal 11."""
    assert run(tmp_path / "data", SEED, EXAMPLES) < EXAMPLES, (
        f"no file from seed {SEED} on was refused"
    )
