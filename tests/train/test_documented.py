"""The commands of train/README.md parse, and those on painted scenes do what it claims."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).parents[2]
README = (ROOT / "train" / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
LINES = [
    shlex.split(line, comments=True)
    for block in BLOCKS
    for line in block.replace("\\\n", "").splitlines()
]
RECIPES = [
    line[line.index("-m", line[0] == "torchrun") + 1 :]
    for line in LINES
    if any("train." in w for w in line)
]
ENOUGH = 0.04  # 20 times chance among 500 captions


@pytest.mark.parametrize("line", RECIPES, ids=" ".join)
def test_a_command_parses(line: list[str]) -> None:
    module, *arguments = line
    recipe = typer.Typer(add_completion=False)
    recipe.command()(importlib.import_module(module).main)
    typer.main.get_command(recipe).make_context(module, arguments).close()


def run(last: str, place: Path) -> None:
    """Run the documented command that ends with ``last``."""
    lines = [line for line in RECIPES if " ".join(line).endswith(last)]
    assert len(lines) == 1, f"{len(lines)} of the documented commands end with {last}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", *lines[0]],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def run_segclip(last: str, place: Path) -> str:
    """Run the documented segclip command that ends with ``last``, and return what it prints."""
    (line,) = [line for line in LINES if line[:1] == ["segclip"] and " ".join(line).endswith(last)]
    done = subprocess.run(
        [sys.executable, "-m", *line],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented")
    run("train.shapes runs/shapes", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "runs",
    [
        ("scratch",),
        pytest.param(("rn",), marks=pytest.mark.long),
        pytest.param(("tiny-start", "tiny"), marks=pytest.mark.long),
    ],
    ids=lambda runs: runs[-1],
)
def test_from_scratch_held_out_captions_are_found(runs: tuple[str, ...], place: Path) -> None:
    """A plain CLIP, one like RN50 with attention pooling and context 77, and a dual encoder."""
    for name in runs:
        run(f"--out runs/{name}", place)
    figures = json.loads((place / "runs" / runs[-1] / "metrics.json").read_text("utf-8"))
    assert figures["text to image R@1"] >= ENOUGH
    assert figures["image to text R@1"] >= ENOUGH
    config = json.loads((place / "runs" / runs[-1] / "config.json").read_text("utf-8"))["model_cfg"]
    kinds = {
        "scratch": "timm_model_name" in config["vision_cfg"],
        "rn": isinstance(config["vision_cfg"].get("layers"), list),
    }
    assert kinds.get(runs[-1], "hf_config" in config["text_cfg"])


@pytest.mark.slow
def test_expressions_of_drawn_scenes_are_measured(tmp_path: Path) -> None:
    run("train.scenes.write runs/scenes --count 2", tmp_path)
    run("train.scenes.refer runs/scenes", tmp_path)
    printed = run_segclip("--json runs/referring.json", tmp_path)
    figures = json.loads((tmp_path / "runs" / "referring.json").read_text("utf-8"))["figures"]
    assert f"{figures['mIoU']:.4f}" in printed
    assert figures["expressions"] > 30
    assert figures["mIoU"] > 0.6
    assert figures["mIoU"] <= figures["best candidate: mIoU"] + 1e-9
