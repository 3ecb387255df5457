"""The samples command."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image as Pillow

from segclip.cli import samples
from tests.commands import run


@pytest.mark.usefixtures("folder")
def test_the_samples_are_copied_with_what_to_try() -> None:
    outcome = run("samples", "new/samples")
    assert outcome.exit_code == 0, outcome.output
    names = sorted(path.name for path in Path("new/samples").iterdir())
    assert names == [path.name for path in samples.find()]
    assert {"coffee.jpg", "desk.png"} <= set(names)
    for name in names:
        Pillow.open(Path("new/samples") / name).verify()
        assert f"wrote new/samples/{name}" in outcome.stdout.splitlines()
    assert "segclip segment new/samples/coffee.jpg 'a spoon'" in outcome.stdout
    assert run("samples", "new/samples").exit_code == 0  # again, with nothing to do


@pytest.mark.usefixtures("folder")
def test_a_file_of_the_users_own_is_not_replaced() -> None:
    before = Path("desk.png").read_bytes()
    outcome = run("samples", ".")
    assert outcome.exit_code == 2
    assert "desk.png is there already" in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["desk.png"]
    assert Path("desk.png").read_bytes() == before
    outcome = run("samples", "desk.png")  # a file
    assert outcome.exit_code == 2
    assert outcome.stderr.count("\n") == 1
