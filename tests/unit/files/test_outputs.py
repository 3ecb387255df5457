"""Output files replace those of an earlier run for the same target, and no others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from segclip.cli.output import OutputOptions
from segclip.errors import NotWritable
from segclip.files import outputs, regular
from segclip.files.formats import PER_IMAGE


def writing(**files: str) -> Callable[[Path], list[Path]]:
    """Return a function that writes the given files; each argument is a name and its content."""

    def write(folder: Path) -> list[Path]:
        for name, content in files.items():
            (folder / name).write_text(content)
        return [folder / name for name in files]

    return write


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_files_are_replaced_and_stale_ones_removed(tmp_path: Path) -> None:
    """Fault 17.7."""
    assert outputs.renew(tmp_path, "segment a", writing(one="1", two="2")) == [
        tmp_path / "one",
        tmp_path / "two",
    ]
    outputs.renew(tmp_path, "segment b", writing(three="3"))
    (tmp_path / "mine").write_text("mine")
    outputs.renew(tmp_path, "segment a", writing(two="II"))
    assert contents(tmp_path) == {"two": "II", "three": "3", "mine": "mine"}
    outputs.renew(tmp_path, "segment a", writing())
    assert contents(tmp_path) == {"three": "3", "mine": "mine"}
    # no staging folder remains
    assert [path.name for path in (tmp_path / outputs.STATE).iterdir()] == ["written"]


def test_files_changed_by_the_user_are_neither_removed_nor_replaced(tmp_path: Path) -> None:
    outputs.renew(tmp_path, "a", writing(one="1", two="2"))
    (tmp_path / "two").write_text("improved by hand")
    outputs.renew(tmp_path, "a", writing(one="I"))
    assert contents(tmp_path) == {"one": "I", "two": "improved by hand"}
    with pytest.raises(NotWritable, match="two is there already"):
        outputs.renew(tmp_path, "a", writing(one="i", two="ii"))
    assert contents(tmp_path) == {"one": "I", "two": "improved by hand"}


@pytest.mark.parametrize(
    "name", ["../precious", "/precious", "..", ".", "", "sub/precious", "precious\0"]
)
def test_a_forged_record_removes_nothing(tmp_path: Path, name: str) -> None:
    """Fault 17.2, for the command line: names read from a record stay inside its folder."""
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    for path in (tmp_path / "precious", out / "sub" / "precious"):
        path.write_text("precious")
    outputs.renew(out, "a", writing(one="1"))
    (record,) = (out / outputs.STATE / "written").iterdir()
    known = regular.digest(tmp_path / "precious")
    record.write_text(
        json.dumps({"files": {name: [known], name.replace("/precious", str(tmp_path)): [known]}})
    )
    outputs.renew(out, "a", writing(two="2"))
    assert (
        (tmp_path / "precious").read_text() == (out / "sub" / "precious").read_text() == "precious"
    )


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"files": 5}', '{"files": {"one": 5}}', "[" * 100_000]
)
def test_a_damaged_record_counts_as_empty(tmp_path: Path, content: str) -> None:
    outputs.renew(tmp_path, "a", writing(one="1"))
    (record,) = (tmp_path / outputs.STATE / "written").iterdir()
    record.write_text(content)
    outputs.renew(tmp_path, "a", writing(two="2"))
    assert contents(tmp_path) == {"one": "1", "two": "2"}


def test_a_kill_between_leaves_no_unrecorded_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs.renew(tmp_path, "a", writing(one="1", two="2"))
    replace = os.replace

    def die(source: Path, target: Path) -> None:
        if Path(target).name == "two":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        outputs.renew(tmp_path, "a", writing(one="I", two="II"))
    monkeypatch.undo()
    assert contents(tmp_path) == {"one": "I", "two": "2"}
    outputs.renew(tmp_path, "a", writing(three="3"))
    assert contents(tmp_path) == {"three": "3"}


def test_an_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotWritable, match="cannot be written to"):
        outputs.renew(tmp_path / "file", "a", writing(one="1"))
    (tmp_path / "one").mkdir()
    with pytest.raises(NotWritable, match="one is there already"):
        outputs.renew(tmp_path, "a", writing(one="1"))


def test_names_of_a_run_are_distinct(tmp_path: Path) -> None:
    """Fault 17.7: mon/1.png and tue/1.png wrote to one file, as would names differing in case."""

    def names(*paths: str) -> list[str]:
        return outputs.labels([tmp_path / path for path in paths])

    assert names("a.png", "b.png") == ["a", "b"]
    assert names("mon/1.png", "tue/1.png", "2.png") == ["mon-1", "tue-1", "2"]
    assert names("a.jpg", "a.png", "a_jpg.webp") == ["a.jpg", "a.png", "a_jpg"]
    assert names("a.png", "b/../a.png") == ["a", "a"]  # one image
    for paths in (
        ["A.png", "a.png"],
        ["caf\u00e9.png", "cafe\u0301.png"],
        ["a-b/1.png", "a/b-1.png", "b-1.png"],
        ["mon/1.png", "tue/1.png", "mon-1.png"],
        ["x/y/1.png", "z/y/1.png", "y-1.png", "y-1.png.png"],
        ["1.png", "1.png.png", "x/1.png"],
    ):
        found = names(*paths)
        assert len({outputs.folded(name) for name in found}) == len(paths), (paths, found)
        assert not any(os.sep in name for name in found)


def test_fault_17_7_long_names_leave_room_for_suffixes(tmp_path: Path) -> None:
    """Suffixes did not fit after a stem near the file system's limit, or one of many folders."""
    stems = [
        "s" * 251,
        "é" * 125,
        *outputs.labels([tmp_path / f"{'d' * 200}{n}" / "1.png" for n in "ab"]),
    ]
    for stem in stems:
        names = list(
            OutputOptions(out=tmp_path, formats=[",".join(PER_IMAGE)])
            .targets(Path(f"{stem}.png"))
            .values()
        )
        assert len(set(names)) == len(PER_IMAGE)
        assert len(outputs.renew(tmp_path, stem, writing(**dict.fromkeys(names, "1")))) == len(
            names
        )
    assert len(set(map(outputs.shortened, stems))) == len(stems)
    assert outputs.shortened("a" * 200) == "a" * 200
