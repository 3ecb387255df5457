"""Tables and data sets of a run: every reader accepts them, whatever names and texts contain."""

from __future__ import annotations

import json
import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO

from segclip.batch import names, yolo
from segclip.types import Array
from tests.exports import draw, run

pytestmark = pytest.mark.usefixtures("fake_models")

ODD_TEXTS = (
    "a caf\u0092s red square",  # a C1 control, as in text mangled by Windows-1252
    "a red\x7f square\x01",
    "a red\ufffe square\uffff",
    "a red\u2028 square",
    "a red\u2029 square",
    "a red\x85 square",
    "a red\ufeff square",
    "a red square: 'x', \"y\" # {z} \\ \t\n",
    "a red 木 square 🦁",
    "yes",
    "- a red square",
)


@pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
def test_fault_17_19_names_of_a_yolo_data_set_are_read_back(
    tmp_path: Path, loader: type[yaml.SafeLoader]
) -> None:
    draw(tmp_path / "in" / "a.png", "red")
    run(tmp_path / "in", tmp_path / "out", *ODD_TEXTS[:3], formats=("yolo",))
    data = yaml.load((tmp_path / "out" / "yolo" / "data.yaml").read_bytes(), loader)
    assert tuple(data["names"].values()) == ODD_TEXTS[:3]
    for text in ODD_TEXTS:
        assert yaml.load(f"names:\n  0: {yolo._yaml(text)}\n", loader) == {"names": {0: text}}


def test_fault_17_19_every_character_is_read_back_by_yaml() -> None:
    characters = [chr(code) for code in (*range(1, 0xD800), *range(0xE000, 0x11000))]
    for start in range(0, len(characters), 4096):
        text = "a".join(characters[start : start + 4096])
        assert yaml.safe_load(f"0: {yolo._yaml(text)}\n") == {0: text}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are text")
def test_fault_17_18_names_outside_utf8_are_distinguished(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pyarrow, arrow_json = (
        pytest.importorskip("pyarrow.parquet"),
        pytest.importorskip("pyarrow.json"),
    )
    folder, out = tmp_path / "in", tmp_path / "out"
    odd = [os.fsdecode(name) for name in (b"caf\xe8.png", b"caf\xe9.png")]
    for name in (*odd, "café.png"):
        draw(tmp_path / "x.png", "red")
        folder.mkdir(exist_ok=True)
        (tmp_path / "x.png").rename(folder / name)
    (folder / os.fsdecode(b"bad\xff.png")).write_text("no image")
    run(folder, out, "a red square", formats=("coco", "jsonl", "parquet", "json", "labelme"))

    for image in COCO(out / "coco.json").imgs.values():
        assert (folder / image["file_name"]).is_file()
    spelt = ["caf\\udce8.png", "caf\\udce9.png", "café.png"]
    lines = (out / "regions.jsonl").read_text("utf-8").splitlines()
    assert sorted(json.loads(line)["image"] for line in lines) == spelt
    assert [
        name.encode("ascii", "backslashreplace").decode("unicode_escape") for name in spelt[:2]
    ] == odd
    assert sorted(arrow_json.read_json(out / "regions.jsonl")["image"].to_pylist()) == spelt
    assert sorted(pyarrow.read_table(out / "regions.parquet")["image"].to_pylist()) == spelt
    assert arrow_json.read_json(out / "failures.jsonl")["image"].to_pylist() == ["bad\\udcff.png"]
    for name in odd:
        assert (
            folder / json.loads((out / "json" / f"{name}.json").read_bytes())["image"]
        ).is_file()
        label = out / "labelme" / f"{name}.labelme.json"
        assert (label.parent / json.loads(label.read_bytes())["imagePath"]).is_file()
    assert "the names of 3 images, such as bad\\udcff.png, are not UTF-8" in caplog.text


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


def _joined_at_once(parts: list[Array]) -> Array:
    """Join as yolo._joined does, but with all distances of two outlines at once."""
    whole = parts[0].astype(float)
    for part in parts[1:]:
        distance = ((whole[:, None] - part[None]) ** 2).sum(axis=2)
        a, b = np.unravel_index(distance.argmin(), distance.shape)
        turned = np.roll(part, -int(b), axis=0).astype(float)
        whole = np.concatenate([whole[: a + 1], turned, turned[:1], whole[a:]])
    return whole


@pytest.mark.parametrize("block", [1, 7, 100, 1 << 20])
def test_fault_17_12e_outlines_are_joined_block_by_block_as_at_once(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yolo, "_BLOCK", block)
    for seed in range(20):
        random = np.random.default_rng(seed)
        # many points are equally near
        parts = [random.integers(0, 12, (random.integers(3, 30), 2)) + 0.01 for _ in range(4)]
        assert np.array_equal(yolo._joined(parts), _joined_at_once(parts))


def test_fault_17_12e_joining_long_outlines_takes_little_memory() -> None:
    turn = np.linspace(0, 2 * np.pi, 9000)
    parts = [np.column_stack([np.cos(turn), np.sin(turn)]) * 900 + 1000 * n for n in (0, 3)]
    tracemalloc.start()
    try:
        assert len(yolo._joined(parts)) == 18002
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()
