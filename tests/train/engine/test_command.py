"""Every recipe is a command whose user errors are one line and exit code 2, before any work."""

from __future__ import annotations

import ast
import importlib
import json
import os
import sys
from pathlib import Path

import PIL.Image
import pytest

from segclip.errors import BadPrompt
from train.engine import command

TRAIN = Path(__file__).parents[3] / "train"


def outcome(
    main: object,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[object, str]:
    """Run a command in this process: exit code and stderr."""
    monkeypatch.setattr(sys, "argv", ["recipe", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.run(main)  # type: ignore[arg-type]
    return ended.value.code, capsys.readouterr().err


def test_every_recipe_is_run_by_the_one_entry() -> None:
    """Fault 17.16: some bypassed it, and their errors were tracebacks."""
    for file in sorted(TRAIN.rglob("*.py")):
        last = ast.parse(file.read_text("utf-8")).body[-1]
        if isinstance(last, ast.If) and "__main__" in ast.unparse(last.test):
            assert ast.unparse(last.body[-1]) in ("command.run(main)", "run(main)"), file.name
            assert "typer.run" not in file.read_text("utf-8"), file.name


def test_no_recipe_turns_trust_on() -> None:
    """Fault 17.9: --start ran the code of a folder or a pickle."""
    for file in sorted(TRAIN.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("trust", "trust_remote_code"):
                assert ast.unparse(node.value) in ("trust", "False"), (
                    f"{file.name}:{node.value.lineno}"
                )
            if isinstance(node, ast.keyword) and node.arg == "weights_only":
                assert ast.unparse(node.value) == "True", f"{file.name}:{node.value.lineno}"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BadPrompt("a\nb\x1b"), "error: a b\\x1b"),
        (FileNotFoundError(2, "No such file or directory", "x"), "No such file"),
        (MemoryError(), "too little memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "too little memory",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "too little memory"),
    ],
)
def test_user_errors_are_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(rate: float = 1.0) -> None:
        raise error

    code, stderr = outcome(main, [], monkeypatch, capsys)
    assert code == 2
    assert line in stderr
    assert stderr.startswith("error: ")
    assert len(stderr.splitlines()) == 1


def test_an_internal_error_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(sys, "argv", ["recipe"])
    with pytest.raises(RuntimeError, match="shapes"):
        command.run(main)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_an_option_that_is_not_finite_is_reported(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(rate: float = 1.0) -> None:
        raise AssertionError("it began")

    code, stderr = outcome(main, ["--rate", value], monkeypatch, capsys)
    assert (code, stderr) == (2, f"error: --rate takes a finite number; got {value}\n")


TIMED = "--minutes nan|--minutes 0|--minutes -1|--lr nan|--lr -1|--first -1"
OPTIONS = {  # required arguments of each recipe, and invalid options
    "contrastive": (
        ["DATA", "--out", "OUT"],
        (
            "--lr nan|--lr -1|--lr inf|--lr 1e9|--batch 0|--batch -1|--rank 0|--rank -3|--seed "
            "-1|--seed 9e99|"
            "--seed 9999999999999999999999|--held-out nan|--held-out 0|--held-out 1|--held-out "
            "-1|--size 100000|--size 0|"
            "--size -1|--captions-each 0|--captions-each -1|--epochs 0|--epochs -1|--chunk "
            "-1|--accumulate 0|--warm-up -1|"
            "--weight-decay -1|--weight-decay nan|--clip 0|--clip nan|--ema 1|--ema nan|--ema "
            "-1|--patience -1|--hard -1|"
            "--text-lr nan|--text-lr -1|--head-lr -1|--template no|--loss no|--augment no|--tune no"
        ),
    ),
    "pacl": (
        ["DATA", "--start", "mini-clip", "--out", "OUT"],
        (
            "--lr nan|--lr -1|--batch 0|--seed -1|--held-out nan|--side -1|--side 100000|--stride "
            "-1|--patches -1|"
            "--captions-each 0|--epochs 0|--warm-up -1|--weight-decay nan|--augment no"
        ),
    ),
    "clipself": (
        ["DATA", "--start", "mini-clip", "--out", "OUT"],
        (
            "--lr nan|--lr -1|--batch 0|--seed -1|--held-out nan|--side -1|--side 100000|--stride "
            "-1|--split 0|"
            "--tower-lr nan|--tower-lr -1|--epochs 0|--warm-up -1|--augment no"
        ),
    ),
    "wise": (
        ["file:A", "file:B", "--out", "OUT"],
        "--share nan|--loss nan|--loss -1|--held-out nan|--held-out 0",
    ),
    "engine.data": (["DATA"], "--held-out nan|--held-out 0|--context 0|--context -1"),
    "dual_encoder": (
        ["resnet10t", "small", "--out", "OUT"],
        "--size 100000|--size 0|--embed-dim 0|--embed-dim 99999999|--seed -1|--pooling no",
    ),
    "region_text": (
        ["DATA", "DATA", "--text", "DATA", "--out", "OUT"],
        "--minutes nan|--minutes 0|--minutes -1",
    ),
    "region_head": (
        ["DATA", "DATA", "--start", "DATA", "--out", "OUT"],
        "--steps 0|--steps -1",
    ),
    "region_features": (
        ["DATA", "--out", "OUT"],
        "--versions 0|--size 0|--size 100|--most 0",
    ),
    "text_distill": (
        ["DATA", "--out", "OUT", "--data", "DATA"],
        "--minutes nan|--minutes 0|--minutes -1",
    ),
    "sam": (["--out", "OUT", "--photos", "DATA", "--trunk", "DATA"], TIMED),
    "proposer": (["--out", "OUT", "--photos", "DATA"], TIMED),
    "region_crops": (["OUT", "--data", "DATA"], "--scenes 0|--scenes -1|--pasted 0"),
    "refiner": (["DATA", "--photos", "DATA"], TIMED),
    "scenes.write": (["OUT"], "--count 0|--count -1|--first -1"),
    "release.places": ([], "--count 0|--count -1"),
    "release.report": ([], "--count 0|--count -1"),
    "shapes": (["OUT"], "--count 0|--count -1|--held-out -1|--first -1"),
    "few": (["OUT"], "--count -1|--held-out 0|--first -1"),
}
CASES = [(name, option) for name, (_, options) in OPTIONS.items() for option in options.split("|")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a minimal data set."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    rows = ["image,caption"]
    for number in range(8):
        PIL.Image.new("RGB", (40, 40), (30 * number, 0, 0)).save(
            folder / "images" / f"{number}.png"
        )
        rows.append(f"{number}.png,thing {number}")
    (folder / "captions.csv").write_text("\n".join(rows))
    return folder


@pytest.mark.parametrize(
    ("name", "option"), CASES, ids=[f"{name} {option}" for name, option in CASES]
)
def test_a_setting_out_of_its_range_is_reported_in_a_line(
    name: str, option: str, data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Fault 17.16: --lr nan, --lr -1, --batch 0, --rank 0, --seed -1, --size 100000 and so on."""
    monkeypatch.chdir(tmp_path)
    places = {"DATA": str(data), "OUT": str(tmp_path / "out")}
    given = [places.get(argument, argument) for argument in OPTIONS[name][0]]
    main = importlib.import_module(f"train.{name}").main
    code, stderr = outcome(main, [*given, *option.split()], monkeypatch, capsys)
    assert code == 2, stderr
    assert len(stderr.splitlines()) == 1 or "Usage:" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out").exists()


def deep(path: Path) -> None:
    path.write_text("[" * 100_000 + "]" * 100_000)


TABLES = {
    "empty.csv": "",
    "blank.csv": "\n\n",
    "header.csv": "image,caption\n",
    "null.json": "null",
    "list.json": "[]",
    "none.json": "{}",
    "images.json": '{"images": []}',
    "wrong.json": '{"images": 5, "annotations": 5}',
    "cut.json": '{"images": [',
    "empty.json": "",
    "empty.jsonl": "",
    "rows.jsonl": "[1]\n",
    "deep.json": "[" * 100_000,
    "deep.jsonl": '{"image": ' + "[" * 100_000,
    "nul.csv": "a\0,b\n",
    "half.jsonl": '{"image": "\\ud800", "caption": "x"}',
    "shard.tar": "no archive",
    "gone.csv": "image,caption\nnone.png,a\nnone2.png,b\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_an_invalid_table_is_reported_in_a_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fault 17.16: an empty table, deep JSON."""
    (tmp_path / name).write_text(TABLES[name])
    from train import contrastive

    code, stderr = outcome(
        contrastive.main,
        [str(tmp_path / name), "--out", str(tmp_path / "out")],
        monkeypatch,
        capsys,
    )
    assert (code, len(stderr.splitlines())) == (2, 1), stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recipe", ["contrastive", "engine.data"])
def test_a_pipe_among_the_images_is_reported_and_does_not_block(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fault 17.16: a FIFO as an image hung."""
    (tmp_path / "images").mkdir()
    os.mkfifo(tmp_path / "images" / "a.png")
    for name in ("b", "c", "d"):
        PIL.Image.new("RGB", (40, 40), (99, 0, 0)).save(tmp_path / "images" / f"{name}.png")
    rows = [json.dumps({"image": f"{name}.png", "caption": f"thing {name}"}) for name in "abcd"]
    (tmp_path / "captions.jsonl").write_text("\n".join(rows))
    main = importlib.import_module(f"train.{recipe}").main
    options = ["--out", str(tmp_path / "out")] if recipe == "contrastive" else []
    monkeypatch.setattr(sys, "argv", ["recipe", str(tmp_path), *options])
    with pytest.raises(SystemExit) as ended:
        command.run(main)
    output = capsys.readouterr()
    assert ended.value.code == (2 if recipe == "contrastive" else 1)
    assert "a.png" in output.err + output.out


MODELS = {
    "list": "[]",
    "empty": "",
    "nothing": "{}",
    "wrong": '{"embed_dim": "x", "vision_cfg": 5, "text_cfg": []}',
    "negative": '{"embed_dim": -1, "vision_cfg": {"image_size": 32}, "text_cfg": {}}',
    "deep": "[" * 100_000,
    "inner": '{"model_cfg": [], "preprocess_cfg": 5}',
    "heads": '{"embed_dim": 8, "vision_cfg": {"image_size": 32, "layers": 1, "width": 8, '
    '"patch_size": 0},'
    ' "text_cfg": {"context_length": 4, "vocab_size": 9, "width": 8, "heads": 0, "layers": 1}}',
}


@pytest.mark.parametrize("name", MODELS)
def test_an_invalid_model_description_is_reported_in_a_line(
    name: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Fault 17.16: deep JSON, and descriptions of no network."""
    from train import contrastive

    (tmp_path / "model.json").write_text(MODELS[name])
    arguments = [
        str(data),
        "--model",
        str(tmp_path / "model.json"),
        "--batch",
        "2",
        "--out",
        str(tmp_path / "out"),
    ]
    code, stderr = outcome(contrastive.main, arguments, monkeypatch, capsys)
    assert (code, len(stderr.splitlines())) == (2, 1), stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recipe", ["region_text", "region_head", "text_distill"])
def test_a_folder_without_crops_is_reported_with_how_to_make_them(
    recipe: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    main = importlib.import_module(f"train.{recipe}").main
    given = [str(data) if each == "DATA" else each for each in OPTIONS[recipe][0]]
    code, stderr = outcome(main, given, monkeypatch, capsys)
    assert (code, len(stderr.splitlines())) == (2, 1), stderr
    assert "train.region_crops" in stderr
