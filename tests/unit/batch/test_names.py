"""Names of outputs: distinct on every file system, and short enough for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from segclip.batch import (
    names,
)
from segclip.batch.names import distinct
from segclip.files.outputs import folded
from tests.exports import draw, run


def test_fault_17_8_names_that_some_file_systems_fold_are_distinct() -> None:
    listed = [
        "A.jpg",
        "a.jpg",
        "b.jpg",
        "sub/é.png",
        "sub/e\u0301.png",
        "SUB/É.png",
        "straße.png",
        "STRASSE.png",
    ]
    places = distinct({name: name for name in listed})
    assert len({folded(place) for place in places.values()}) == len(listed)
    assert places["b.jpg"] == "b.jpg"
    assert all(Path(place).suffix == Path(name).suffix for name, place in places.items())
    assert distinct({name: name for name in reversed(listed)}) == places
    assert (
        distinct({places["A.jpg"]: places["A.jpg"]} | {name: name for name in listed})["b.jpg"]
        == "b.jpg"
    )


class TestLongNames:
    LONG = ("l" * 249, "é" * 125, "n" * 240 + ".b", "木" * 83)

    def test_fault_17_7_they_do_not_stop_a_run(self, tmp_path: Path) -> None:
        folder, out = tmp_path / "in", tmp_path / "out"
        for stem in self.LONG:
            for suffix in (".png", ".jpg", ".bmp"):
                if len(os.fsencode(stem + suffix)) <= 255:
                    draw(tmp_path / f"x{suffix}", "red", "red")
                    folder.mkdir(exist_ok=True)
                    (tmp_path / f"x{suffix}").rename(folder / f"{stem}{suffix}")
        formats = (
            "png",
            "cutout",
            "labelmap",
            "json",
            "labelme",
            "overlay",
            "coco",
            "yolo",
            "jsonl",
        )
        done = run(folder, out, "a red square", formats=formats)
        assert done.states == {"matched": len(list(folder.iterdir())), "empty": 0, "failed": 0}
        assert len(list((out / "yolo" / "labels").iterdir())) == done.images
        assert len(list((out / "yolo" / "images").iterdir())) == done.images
        assert len(list((out / "png").iterdir())) == 2 * done.images
        assert run(folder, out, "a red square", formats=formats).progress.before == done.images

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems take shorter paths")
    def test_fault_17_7_deep_folders_do_not_either(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        deep = Path("in", *["d" * 250] * 14)
        deep.mkdir(parents=True)
        for name in ("a.png", "b.png"):
            draw(deep / name, "red")
        done = run("in", tmp_path / "out", "a red square", formats=("png", "yolo"))
        assert done.states["matched"] == 2
        assert len(list((tmp_path / "out" / "yolo" / "labels").iterdir())) == 2

    def test_names_that_fit_stay_and_others_are_distinguished(self) -> None:
        for name in ("a.png", "x" * 196 + ".png", "d/" * 300 + "a.png", "a"):
            assert names.fitting(name) == name
        long = ["x" * 250 + end for end in (".png", ".jpg", "")] + [
            "x" * 251 + ".png",
            "d/" + "x" * 250 + ".png",
        ]
        long += ["a." + "s" * 250, f"{'d' * 250}/" * 14 + "a.png", f"{'d' * 250}/" * 13 + "e/a.png"]
        fitted = [names.fitting(name) for name in long]
        assert len(set(fitted)) == len(long)
        assert all(len(os.fsencode(part)) <= 200 for name in fitted for part in Path(name).parts)
        assert fitted[0].endswith(".png")
