"""The heat command writes one sheet, and refuses an encoder without patches."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest
from typer.testing import CliRunner

from segclip import loading
from segclip.cli.main import app
from segclip.types import Image
from tests.fakes import Coarse, FakeEncoder


def test_the_command_writes_an_image(
    sample_image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        loading,
        "load_encoder",
        lambda name, **options: Coarse() if name == "dense" else FakeEncoder(),
    )
    PIL.Image.fromarray(sample_image.pixels).save(tmp_path / "painted.png")
    arguments = [
        "heat",
        str(tmp_path / "painted.png"),
        "red",
        "blue",
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(app, [*arguments, "--encoder", "dense"])
    assert done.exit_code == 0, done.output
    assert PIL.Image.open(tmp_path / "out" / "painted.heat.png").size[0] > 600
    done = CliRunner().invoke(app, [*arguments, "--encoder", "crops"])
    assert done.exit_code == 2
