from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

import segclip
from segclip import exporters, loading, question, weights
from segclip.cli import main as cli
from segclip.cli import options, output
from segclip.files import formats, outputs
from segclip.ranking.selection import Selection
from segclip.scoring.scorers import CropScorer
from segclip.segmenter import Segmenter
from segclip.types import Image
from tests.fakes import FakeEncoder, FakeProposer, paint


@pytest.fixture
def folder(tmp_path: Path, sample_image: Image, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with only desk.png; undo what --offline sets afterwards."""
    for name in ("SEGCLIP_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    Pillow.fromarray(sample_image.pixels).save(tmp_path / "desk.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Load fakes instead of models, and return the arguments of each load."""
    calls: list[tuple[object, ...]] = []

    def load(proposer: str, encoder: str, **options: object) -> Segmenter:
        calls.append((proposer, encoder, *options.values()))
        fake = FakeEncoder()
        return Segmenter(FakeProposer(), fake, CropScorer(fake))

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr(loading, "load_proposer", lambda name, **options: FakeProposer())
    return calls


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, arguments)


def written(folder: Path) -> list[str]:
    return sorted(
        path.name for path in (folder / "segclip-out").glob("*") if path.name != outputs.STATE
    )


@pytest.mark.usefixtures("loads")
def test_larger_models_are_suggested_once_for_a_users_photo(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(folder / "home"))
    assert "weights get photo" not in run("segment", "desk.png", "red", "--preset", "photo").stderr
    assert "weights get photo" not in run("segment", "desk.png", "red", "--json").output
    first, second = run("segment", "desk.png", "red"), run("segment", "desk.png", "red")
    assert first.stderr.count("weights get photo") == 1
    assert "weights get photo" not in first.stdout + second.output
    (folder / "home" / "once" / "larger-models").unlink()
    (folder / "samples").mkdir()
    Path("desk.png").rename("samples/desk.png")
    assert "weights get photo" not in run("segment", "samples/desk.png", "red").output


@pytest.mark.usefixtures("loads")
def test_segment_prints_a_table_and_writes_the_files(folder: Path) -> None:
    outcome = run("segment", "desk.png", "a red box", "blue")
    assert outcome.exit_code == 0, outcome.output
    header, red, blue, *files = outcome.stdout.splitlines()
    assert header.split() == ["text", "probability", "similarity", "quality", "box", "x1,y1,x2,y2"]
    assert red.startswith("a red box  ")
    assert red.endswith("10,10,50,50")
    assert blue.endswith("110,60,150,110")
    names = ["cutout.00.png", "cutout.01.png", "json", "mask.00.png", "mask.01.png", "overlay.png"]
    assert written(folder) == [f"desk.{name}" for name in names]
    assert len(files) == len(names)
    assert all(Path(line.removeprefix("wrote ")).is_file() for line in files)
    mask = np.array(Pillow.open(folder / "segclip-out" / "desk.mask.00.png"))
    assert (mask[10:50, 10:50] == 255).all()
    assert mask.sum() == 255 * 1600


@pytest.mark.usefixtures("loads")
def test_no_match_is_reported_and_is_not_an_error(folder: Path) -> None:
    outcome = run("segment", "desk.png", "a yellow banana", "--threshold", "0.6")
    assert outcome.exit_code == 0
    assert outcome.stdout.startswith("nothing here matches 'a yellow banana' (best 0.")
    assert "threshold 0.60)" in outcome.stdout
    assert written(folder) == ["desk.json", "desk.overlay.png"]


@pytest.mark.usefixtures("loads", "folder")
def test_a_match_in_the_wrong_position_is_explained() -> None:
    lines = run("segment", "desk.png", "red right of the green box").stdout.splitlines()
    assert lines[0] == "nothing here matches 'red right of the green box'"
    assert (
        lines[1] == "'red right of the green box': none of 1 found for 'red': right of 'green box'"
    )


@pytest.mark.usefixtures("loads", "folder")
@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (["--point", "20,20"], [("point", [10, 10, 50, 50])]),
        (
            ["--box", "0,0,55,55", "--box", "100,50,160,120"],
            [("box 1", [10, 10, 50, 50]), ("box 2", [110, 60, 150, 110])],
        ),
        (["red", "blue", "--box", "0,0,55,55"], [("red", [10, 10, 50, 50])]),
        (["red", "blue", "--point", "20,20,0"], [("blue", [110, 60, 150, 110])]),
        (["red", "blue", "--point", "120,80"], [("blue", [110, 60, 150, 110])]),
        (["--like", "20,20"], [("like this", [10, 10, 50, 50])]),
        (["--everything", "--top-k", "1"], [("object", [10, 10, 50, 50])]),
        (["--everything", "--box", "55,0,105,120"], [("object", [60, 20, 100, 80])]),
        (
            ["--everything", "--point", "20,20,0", "--box", "0,0,105,120"],
            [("object", [60, 20, 100, 80])],
        ),
        (["--everything", "--box", "0,0,5,5"], []),
        (["--like", "20,20", "--box", "55,0,160,120"], []),
    ],
)
def test_points_and_boxes_work_alone_and_with_texts(
    options: list[str], rows: list[tuple[str, list[int]]], loads: list[tuple[object, ...]]
) -> None:
    outcome = run("segment", "desk.png", *options, "--json")
    assert outcome.exit_code == 0, outcome.output
    # an encoder is loaded only where it is needed
    assert bool(loads) == bool({"red", "--like"} & set(options))
    record = json.loads(outcome.stdout)
    assert [(row["text"], row["box"]) for row in record["rows"]] == rows
    if rows and "red" not in options and "--like" not in options:
        assert {row["probability"] for row in record["rows"]} == {None}


@pytest.mark.usefixtures("loads", "folder")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "neither a text nor a place"),
        (["--point", "500,20"], r"x must lie in \[0, 160\)"),
        (["--point", "nan,20"], "finite"),
        (["--point", "20"], "takes 2 or 3 numbers"),
        (["--point", "20,20,2"], "one 0 or 1"),
        (["--point", "x,y"], "takes 2 or 3 numbers"),
        (["--box", "10,10,500,20"], r"x must lie in \[0, 160\]"),
        (["--box", "50,10,10,20"], "x1 < x2"),
        (["--box", "1,2,3"], "takes 4 numbers"),
        (["--point", "20,20", "--box", "0,0,9,9", "--box", "20,20,30,30"], "one box"),
        (["--like", "155,5"], "nothing at the example's place"),
        (["red", "--like", "20,20"], "neither texts nor --point"),
        (["--like", "20,20", "--point", "5,5"], "neither texts nor --point"),
        (["red", "--everything"], "takes neither texts"),
        (["--everything", "--point", "20,20"], "nor a click on an object"),
        (["--everything", "--like", "20,20"], "nor --like"),
        (["second from the right"], "not what"),
    ],
)
def test_bad_prompts_are_rejected_with_what_is_allowed(options: list[str], message: str) -> None:
    outcome = run("segment", "desk.png", *options)
    assert outcome.exit_code == 2
    assert re.search(message, outcome.stderr)
    assert outcome.stderr.count("\n") == 1


@pytest.mark.usefixtures("loads", "folder")
def test_require_makes_a_missing_text_exit_with_one() -> None:
    assert run("segment", "desk.png", "red", "yellow", "--require").exit_code == 1
    assert run("segment", "desk.png", "red", "--require").exit_code == 0


@pytest.mark.usefixtures("loads")
def test_json_prints_the_record_alone_and_writes_nothing(folder: Path) -> None:
    outcome = run("segment", "desk.png", "red", "--json")
    record = json.loads(outcome.stdout)
    assert record["asked"] == ["red"]
    assert record["rows"][0]["box"] == [10, 10, 50, 50]
    assert sorted(path.name for path in folder.iterdir()) == ["desk.png"]
    run("segment", "desk.png", "red", "--json", "--out", "mine", "--format", "overlay")
    assert sorted(path.name for path in (folder / "mine").iterdir()) == [
        outputs.STATE,
        "desk.overlay.png",
    ]


@pytest.mark.usefixtures("loads")
def test_every_selection_option_reaches_the_selection(folder: Path) -> None:
    image = paint(
        ("red", (10, 10, 70, 70)), ("green", (20, 20, 40, 40)), ("blue", (80, 20, 120, 60))
    )
    Pillow.fromarray(image.pixels).save(folder / "desk.png")

    def boxes(*options: str) -> list[list[int]]:
        text = "red, green and blue"
        outcome = run("segment", "desk.png", text, "--json", "--background", "nothing", *options)
        return sorted(row["box"] for row in json.loads(outcome.stdout)["rows"])

    red, green, blue = [10, 10, 70, 70], [20, 20, 40, 40], [80, 20, 120, 60]
    assert boxes("--keep-parts") == [red, green, blue]
    assert boxes("--not", "green") == [red, blue]
    assert boxes("--nms", "0.1") == [red, green, blue]
    assert len(boxes("--keep-parts", "--top-k", "2")) == 2
    assert len(boxes("--best")) == 1
    assert boxes("--threshold", "1") == []
    assert len(boxes("--threshold", "1", "--best")) == 1
    assert boxes("--templates", "plain", "--not", "green") == [red, blue]


@pytest.mark.usefixtures("folder")
def test_models_are_chosen_by_preset_and_by_part(loads: list[tuple[object, ...]]) -> None:
    run(
        "segment",
        "desk.png",
        "red",
        "--preset",
        "photo",
        "--device",
        "cpu",
        "--policy",
        "tight",
        "--offline",
        "--trust",
    )
    run(
        "segment",
        "desk.png",
        "red",
        "--proposer",
        "file:own.pt",
        "--encoder",
        "ViT-B-16/file:own.safetensors",
    )
    run("segment", "desk.png", "red", "--preset", "photo", "--proposer", "fastsam-x")
    assert loads == [
        (*loading.PRESETS["photo"], "cpu", "tight", True, True),
        ("file:own.pt", "ViT-B-16/file:own.safetensors", "auto", None, False, False),
        ("fastsam-x", loading.PRESETS["photo"][1], "auto", None, False, False),
    ]


@pytest.mark.usefixtures("loads", "folder")
def test_a_duplicate_text_is_reported_and_answered_once() -> None:
    outcome = run("segment", "desk.png", "red", "red", "--json")
    assert len(json.loads(outcome.stdout)["rows"]) == 1
    assert "'red' was given 2 times" in outcome.stderr


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
    assert len(lines) == 1 or lines[0].startswith("Usage:")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize(
    "options",
    [
        ["--format", "overlay,json"],
        ["--format", "overlay", "--format", "json"],
        ["--format", "overlay,,json "],
    ],
)
def test_formats_may_be_comma_separated_or_repeated(folder: Path, options: list[str]) -> None:
    """Fault 17.23: only the last of repeated --format was used."""
    assert run("segment", "desk.png", "red", *options).exit_code == 0
    assert written(folder) == ["desk.json", "desk.overlay.png"]


@pytest.mark.usefixtures("loads", "folder")
@pytest.mark.parametrize("texts", [["b.png", "apple"], ["apple", "photos/c d.JPG"], ["b.webp"]])
def test_shell_expanded_files_are_not_taken_for_texts(texts: list[str]) -> None:
    """Fault 17.23: segment photos/*.png "apple" looked for files by their names."""
    outcome = run("segment", "desk.png", *texts)
    assert outcome.exit_code == 2
    assert "is a file, not a text" in outcome.stderr
    assert "segclip export" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


@pytest.mark.usefixtures("loads")
def test_files_of_an_earlier_result_are_replaced(folder: Path, sample_image: Image) -> None:
    """Fault 17.7: masks of another image of the same name lay beside "nothing matches"."""
    (folder / "other").mkdir()
    Pillow.fromarray(sample_image.pixels[:, ::-1]).save(folder / "other" / "desk.png")
    (folder / "segclip-out").mkdir()
    mine = folder / "segclip-out" / "desk.mask.07.png"
    mine.write_bytes(b"my own")
    assert run("segment", "desk.png", "--everything").exit_code == 0
    assert len(written(folder)) == 2 + 2 * 3 + 1
    outcome = run("segment", "other/desk.png", "a yellow lion")
    reported = {
        Path(line).name for line in outcome.stdout.splitlines() if line.startswith("wrote ")
    }
    assert (
        set(written(folder))
        == {*reported, mine.name}
        == {"desk.json", "desk.overlay.png", mine.name}
    )
    assert mine.read_bytes() == b"my own"


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize("name", ["desk.json", "desk.overlay.png", "desk.mask.00.png"])
@pytest.mark.parametrize("kind", ["file", "link", "folder", "changed"])
def test_users_files_are_not_overwritten(folder: Path, name: str, kind: str) -> None:
    """Faults 17.7 and 17.1: only unchanged files that segclip wrote are replaced."""
    (folder / "precious").write_bytes(b"precious")
    (folder / "out").mkdir()
    if kind == "changed":
        assert run("segment", "desk.png", "red", "--out", "out").exit_code == 0
    if kind in ("file", "changed"):
        (folder / "out" / name).write_bytes(b"precious")
    elif kind == "link":
        (folder / "out" / name).symlink_to(folder / "precious")
    else:
        (folder / "out" / name).mkdir()
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    outcome = run("segment", "desk.png", "red", "blue", "--out", "out")
    assert outcome.exit_code == 2
    assert f"{name} is there already, and not as segclip wrote it" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert {
        path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    } == before


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


def test_formats_and_defaults_agree_with_the_library() -> None:
    assert set(formats.PER_IMAGE) == set(exporters.WRITERS)
    assert options.RivalOptions.max_pixels == question.MAX_PIXELS
    assert options.SelectionOptions().selection() == Selection()
    assert options.SelectionOptions(nms=0.1, keep_parts=True).selection() == Selection(
        nms=0.1, containment=None
    )
    for preset in loading.PRESETS:
        assert preset in run("segment", "--help").stdout


def test_weights_list_shows_every_row() -> None:
    outcome = run("weights", "list")
    assert outcome.exit_code == 0
    for name in weights.manifest():
        assert name in outcome.stdout


def test_weights_get_and_path_of_missing_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path))
    monkeypatch.setenv("SEGCLIP_OFFLINE", "1")
    for arguments in (
        ["get", "fastsam-s", "--offline"],
        ["path", "fastsam-s"],
        ["verify", "fastsam-s"],
        ["get", "photo"],
    ):
        outcome = run("weights", *arguments)
        assert outcome.exit_code == 2, outcome.output
        assert "fastsam-s" in outcome.stderr
        assert len(outcome.stderr.splitlines()) == 1
    assert run("weights", "path", "fastsam-q").exit_code == 2


def test_weights_verify_detects_wrong_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path))
    path = weights.manifest()["fastsam-s"].path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not these")
    outcome = run("weights", "verify", "fastsam-s")
    assert outcome.exit_code == 2
    assert outcome.stdout.startswith("WRONG")
    assert str(path) in outcome.stderr


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


def label(folder: Path, *absent: str) -> None:
    """Write a COCO-format table of the image's red box, plus absent categories."""
    (folder / "images").mkdir()
    (folder / "desk.png").rename(folder / "images" / "desk.png")
    thing = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [10, 10, 40, 40]}
    thing["segmentation"] = [[10, 10, 50, 10, 50, 50, 10, 50]]
    table = {
        "images": [{"id": 1, "file_name": "desk.png", "height": 120, "width": 160}],
        "categories": [{"id": at, "name": name} for at, name in enumerate(("red", *absent), 1)],
        "annotations": [thing],
    }
    (folder / "instances.json").write_text(json.dumps(table))


@pytest.mark.usefixtures("loads")
@pytest.mark.parametrize(
    ("verb", "line"), [("proposals", "AR@10, medium"), ("clicks", "mean IoU after 1 click")]
)
def test_evaluate_prints_its_table(verb: str, line: str, folder: Path) -> None:
    label(folder)
    outcome = run("evaluate", verb, ".")
    assert outcome.exit_code == 0, outcome.output
    assert f"{line:48} 1.000" in outcome.stdout.splitlines()
    assert not outcome.stderr
    (folder / "instances.json").unlink()
    assert run("evaluate", verb, ".").exit_code == 2


@pytest.mark.usefixtures("loads")
def test_evaluate_prints_progress_lines_without_a_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(folder)
    monkeypatch.setattr(output, "EVERY", 0.0)
    printed = run("evaluate", "proposals", ".").stderr
    assert re.fullmatch(r"1 of 1, [\d.]+/s, 0 min left\n", printed)


@pytest.mark.usefixtures("loads")
def test_evaluate_text_stores_the_fitted_threshold_in_the_run(folder: Path) -> None:
    label(folder, "a zebra")
    outcome = run("evaluate", "text", ".", "--calibrate")
    assert outcome.exit_code == 2
    assert "give --encoder file:RUN" in outcome.stderr
    (folder / "run").mkdir()
    config = {"model_cfg": {"embed_dim": 4}, "serving": {"threshold": 0.99}}
    (folder / "run" / "config.json").write_text(json.dumps(config))
    outcome = run("evaluate", "text", ".", "--encoder", "file:run", "--calibrate")
    assert outcome.exit_code == 0, outcome.output
    stored = json.loads((folder / "run" / "config.json").read_text())
    assert stored["model_cfg"] == config["model_cfg"]
    assert stored["serving"]["calibrated"] is True
    assert stored["serving"]["threshold"] == 0.9999  # not 1, which nothing would reach
    assert f"stored threshold {stored['serving']['threshold']} in run/config.json" in outcome.stdout


@pytest.mark.usefixtures("loads")
def test_no_threshold_is_fitted_without_absent_names(folder: Path) -> None:
    label(folder)
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text("{}")
    assert (
        "threshold that fits best here                    -" in run("evaluate", "text", ".").stdout
    )
    outcome = run("evaluate", "text", ".", "--encoder", "file:run", "--calibrate")
    assert outcome.exit_code == 2
    assert "one kind is missing" in outcome.stderr
    assert (folder / "run" / "config.json").read_text() == "{}"


def test_escapes_in_names_and_texts_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """Fault 17.17d."""
    path = tmp_path / "\x1b[2Ja\x9b.png"
    path.write_bytes(b"no image")
    # color: as on a terminal
    done = CliRunner().invoke(cli.app, ["segment", str(path), "a \x1b[31mred"], color=True)
    assert done.exit_code == 2
    assert "\\x1b[2Ja\\x9b.png" in done.output
    assert not {"\x1b", "\x9b"} & set(done.output)
