from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image as Pillow
from typer.testing import CliRunner

import segclip
from segclip import loading, weights
from segclip.cli import main as cli
from tests.commands import run, written

BAD = {
    "no such file": ["absent.png", "red"],
    "a folder": [".", "red"],
    "not an image": ["notes.png", "red"],
    "an empty file": ["empty.png", "red"],
    "too large": ["desk.png", "red", "--max-pixels", "100"],
    "an empty text": ["desk.png", " "],
    "both a text and excluded": ["desk.png", "red", "--not", "red"],
    "an unknown format": ["desk.png", "red", "--format", "overlay,tga"],
    "an unknown preset": ["desk.png", "red", "--preset", "maxi"],
    "an unknown template set": ["desk.png", "red", "--templates", "none"],
    "a threshold out of range": ["desk.png", "red", "--threshold", "7"],
    "top-k of nothing": ["desk.png", "red", "--top-k", "0"],
    "a file for a folder": ["desk.png", "red", "--out", "notes.png"],
    "a file above the folder": ["desk.png", "red", "--out", "notes.png/deeper"],
    "no text": ["desk.png"],
    "an unknown option": ["desk.png", "red", "--treshold", "0.2"],
    "not a number": ["desk.png", "red", "--threshold", "high"],
}


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_error_line_exit_code_2_and_no_files(
    folder: Path, arguments: list[str]
) -> None:
    (folder / "notes.png").write_text("these are notes")
    (folder / "empty.png").touch()
    before = sorted(folder.rglob("*"))
    outcome = run("segment", *arguments)
    assert outcome.exit_code == 2, outcome.output
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    lines = outcome.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("segclip: ")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segmnt", "desk.png"], "no such command 'segmnt'; did you mean 'segment'?"),
        (["--nope"], "no such option: --nope"),
        (["segment"], "missing argument 'IMAGE'"),
        (["segment", "desk.png", "red", "--nope"], "no such option: --nope"),
        (["segment", "desk.png", "red", "--format"], "'--format' requires an argument"),
        (["search", "photos", "red", "umbrella"], "put a text of several words in quotes"),
        (["weights", "gte", "photo"], "no such command 'gte'"),
        (["evaluate", "text"], "missing argument"),
        (["help", "nonsense"], "no such command 'nonsense'"),
    ],
)
def test_a_command_line_that_cannot_be_parsed_is_one_line(
    arguments: list[str], message: str
) -> None:
    outcome = run(*arguments)
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    assert outcome.stderr.startswith("segclip: ")
    assert message in outcome.stderr
    assert " --help)" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def _commands() -> list[list[str]]:
    groups: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    return [
        [],
        *([name] for name in groups),
        *([name, verb] for name in groups for verb in getattr(groups[name], "commands", ())),
    ]


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_help_is_the_same_in_every_spelling(command: list[str]) -> None:
    outcomes = [run(*command, "--help"), run(*command, "-h"), run("help", *command)]
    assert [outcome.exit_code for outcome in outcomes] == [0, 0, 0]
    texts = {outcome.stdout for outcome in outcomes}
    assert len(texts) == 1
    assert "-h, --help" in texts.pop()


@pytest.mark.usefixtures("loads")
def test_control_characters_of_names_and_texts_are_escaped(folder: Path) -> None:
    """Fault 17.17d."""
    (folder / "desk.png").rename(folder / "a\x1b[2Jb.png")
    outcome = run(
        "segment",
        "a\x1b[2Jb.png",
        "a red\x1b]0;box\x07",
        "yellow\x1b[31m",
        "a\u202ered",
        "--format",
        "json",
    )
    assert outcome.exit_code == 0
    missing = run("segment", "gone\x1b[2J.png", "red")
    # click itself prints these
    misused = run("search", "photos", "red", "--", "one too many\x1b[2J", "\u202e")
    assert misused.exit_code == 2
    assert "one too many" in misused.output
    assert not set("\x1b\x07\u202e") & set(outcome.output + missing.output + misused.output)
    assert "yellow" in outcome.stdout
    assert "no such file" in missing.stderr


def test_a_missing_model_is_reported_with_its_source(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(folder / "home"))
    monkeypatch.setenv("SEGCLIP_OFFLINE", "1")
    outcome = run("segment", "desk.png", "red", "--preset", "photo")
    assert outcome.exit_code == 2
    assert len(outcome.stderr.splitlines()) == 1
    entry = weights.manifest()["fastsam-s"]
    for part in (entry.file, entry.url, entry.sha256, str(entry.path)):
        assert str(part) in outcome.stderr


@pytest.mark.usefixtures("folder")
def test_ctrl_c_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "load", interrupt)
    outcome = run("segment", "desk.png", "red")
    assert outcome.exit_code == 130
    assert "Traceback" not in outcome.output


def test_help_imports_no_heavy_module() -> None:
    code = (
        "import sys; from segclip.cli.main import app; app(['segment', '--help'], "
        "standalone_mode=False); "
    )
    code += "print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert not {"torch", "numpy", "cv2", "ultralytics", "open_clip"} & set(output.split())


def test_the_module_runs_and_prints_its_version() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "segclip", "--version"], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == segclip.__version__


@pytest.mark.slow
def test_users_own_models_work_end_to_end_and_offline(folder: Path) -> None:
    from segclip.proposers.yolo import save
    from tests.networks import random_network, sample_image, save_checkpoint
    from tests.small_clip import save_small_clip

    save_small_clip(folder / "clip")
    # a bare .pt file runs at this size
    network = random_network("yolov8n-seg.yaml", candidates=40, size=1024)
    save(network, folder / "finder", {"image_size": 1024, "confidence": 0.4, "iou": 0.7})
    save_checkpoint(network, folder / "own.pt")
    Pillow.fromarray(sample_image(1024, 1024).pixels).save(folder / "photo.jpg")
    arguments = [
        "segment",
        "photo.jpg",
        "a red thing",
        "--best",
        "--offline",
        "--encoder",
        "file:clip",
        "--proposer",
    ]

    refused = run(*arguments, "file:own.pt")
    assert refused.exit_code == 2
    assert "--trust" in refused.stderr
    for given in (["file:finder"], ["file:own.pt", "--trust"]):
        outcome = run(*arguments, *given)
        assert outcome.exit_code == 0, outcome.output
        assert "\na red thing" in outcome.stdout
        # an empty second result would have removed it
        assert "photo.cutout.00.png" in written(folder)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_real_interrupt_leaves_no_traceback(folder: Path) -> None:
    code = (
        "import time, segclip.loading as p; p.load = lambda *a, **k: (print('ready', "
        "flush=True), time.sleep(60)); "
    )
    code += "from segclip.cli.main import app; app(['segment', 'desk.png', 'red'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_escapes_in_names_and_texts_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """Fault 17.17d."""
    path = tmp_path / "\x1b[2Ja\x9b.png"
    path.write_bytes(b"no image")
    # color: as on a terminal
    done = CliRunner().invoke(cli.app, ["segment", str(path), "a \x1b[31mred"], color=True)
    assert done.exit_code == 2
    assert "\\x1b[2Ja\\x9b.png" in done.output
    assert not {"\x1b", "\x9b"} & set(done.output)
