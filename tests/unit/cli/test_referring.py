"""`segclip evaluate referring`: a table, a file of figures, one line for what is bad, resuming."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from segclip.types import Image
from tests import batch_script, expressions
from tests.commands import run
from tests.test_trust_canary import Canary

pytestmark = pytest.mark.usefixtures("fake_models")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with expressions."""
    expressions.refcoco(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def line(name: str, value: str) -> str:
    return f"{name:48} {value}"


def test_the_table_is_printed() -> None:
    outcome = run("evaluate", "referring", ".")
    assert outcome.exit_code == 0, outcome.output
    assert not outcome.stderr
    lines = outcome.stdout.splitlines()
    assert line("expressions", "7") in lines
    assert line("mIoU", f"{6 / 7:.4f}") in lines
    assert line("P@0.5", f"{6 / 7:.4f}") in lines


@pytest.mark.parametrize(
    ("name", "figure", "value"),
    [
        ("grefcoco", "N-acc", "0.6667"),
        ("reviewed", "mIoU", "1.0000"),
        ("saco", "cgF1", "1.0000"),
        ("phrasecut", "phrases without an answer", "1"),
    ],
)
def test_every_format_is_measured(name: str, figure: str, value: str, tmp_path: Path) -> None:
    file = getattr(expressions, name)(tmp_path / name)
    outcome = run("evaluate", "referring", file)
    assert outcome.exit_code == 0, outcome.output
    assert line(figure, value) in outcome.stdout.splitlines()


def test_split_limit_and_images_choose_what_is_measured(place: Path) -> None:
    (place / "images").rename(place / "elsewhere")
    for options, count in (
        (("--split", "testA"), "1"),
        (("--limit", "1"), "6"),
    ):
        outcome = run("evaluate", "referring", ".", "--images", "elsewhere", *options)
        assert line("expressions", count) in outcome.stdout.splitlines(), outcome.output
    outcome = run("evaluate", "referring", ".")
    assert (outcome.exit_code, len(outcome.stderr.splitlines())) == (2, 1)
    assert "--images" in outcome.stderr


def test_a_threshold_that_nothing_reaches_leaves_all_unanswered(place: Path) -> None:
    expressions.grefcoco(place / "several")
    outcome = run("evaluate", "referring", "several", "--threshold", "1")
    assert line("N-acc", "1.0000") in outcome.stdout.splitlines(), outcome.output
    assert line("T-acc", "0.0000") in outcome.stdout.splitlines()


def test_figures_are_written_and_a_second_run_measures_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("evaluate", "referring", ".", "--json", "out/figures.json")
    assert first.exit_code == 0, first.output
    written = json.loads((place / "out" / "figures.json").read_text())
    assert written["protocol"] == "refcoco"
    assert written["figures"]["mIoU"] == pytest.approx(6 / 7)
    journal = place / "out" / "figures.json.journal"
    assert len(journal.read_text().splitlines()) == 7

    def fail(self: Any, image: Image) -> Any:
        raise AssertionError("an image was encoded again")

    with monkeypatch.context() as patched:
        patched.setattr(batch_script.DeadlyProposer, "encode", fail)
        again = run("evaluate", "referring", ".", "--json", "out/figures.json")
    assert again.exit_code == 0, again.output
    assert again.stdout == first.stdout
    assert again.stderr == "2 images were measured before\n"


def test_an_interrupted_run_goes_on_with_the_same_figures(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("evaluate", "referring", ".").stdout
    encode = batch_script.DeadlyProposer.encode
    encoded: list[Image] = []

    def stop(self: Any, image: Image) -> Any:
        encoded.append(image)
        if len(encoded) == 2:
            raise KeyboardInterrupt
        return encode(self, image)

    monkeypatch.setattr(batch_script.DeadlyProposer, "encode", stop)
    assert run("evaluate", "referring", ".", "--json", "f.json").exit_code == 130
    assert not (place / "f.json").exists()
    resumed = run("evaluate", "referring", ".", "--json", "f.json")
    assert resumed.stderr == "1 images were measured before\n"
    assert resumed.stdout == f"{whole}wrote f.json\n"
    assert len(encoded) == 3


def test_figures_of_nothing_are_null(place: Path) -> None:
    expressions.grefcoco(place / "several", [expressions.ref(1, [1], "red")])
    outcome = run("evaluate", "referring", "several", "--json", "f.json")
    assert outcome.exit_code == 0, outcome.output
    assert json.loads((place / "f.json").read_text())["figures"]["N-acc"] is None


@pytest.mark.parametrize("name", ["instances.json", "refs(unc).p", "images", "notes.txt"])
def test_no_file_of_the_user_is_replaced(name: str, place: Path) -> None:
    (place / "notes.txt").write_text("precious")
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    outcome = run("evaluate", "referring", ".", "--json", name)
    assert (outcome.exit_code, len(outcome.stderr.splitlines())) == (2, 1)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_one_line_and_runs_nothing(protocol: int, place: Path) -> None:
    rows = [*expressions.REFS, Canary(place / "ran")]
    (place / "refs(unc).p").write_bytes(pickle.dumps(rows, protocol=protocol))
    outcome = run("evaluate", "referring", ".")
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith(
        "segclip: the expressions refs(unc).p is not a pickle of plain"
    )
    assert len(outcome.stderr.splitlines()) == 1
    assert not (place / "ran").exists()


BROKEN = {
    "refs(unc).p": (b"", b"\x80", b"[]", pickle.dumps(5), pickle.dumps([]), pickle.dumps([{}])),
    "instances.json": (b"", b"[]", b"{}", b"[" * 100_000, b"\xff"),
    "images/a.png": (b"", b"no image"),
}
BROKEN_CASES = [(name, content) for name, contents in BROKEN.items() for content in contents]


@pytest.mark.parametrize(("name", "content"), BROKEN_CASES)
def test_a_bad_file_is_one_line(name: str, content: bytes, place: Path) -> None:
    (place / name).write_bytes(content)
    outcome = run("evaluate", "referring", ".")
    assert outcome.exit_code == 2, outcome.output
    assert outcome.stderr.startswith("segclip: ")
    assert len(outcome.stderr.splitlines()) == 1
