"""Tables and data sets of a run: every reader accepts them, whatever names and texts contain."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from pycocotools.coco import COCO

from segclip.batch import (
    Ask,
    collect,
    plan,
)
from segclip.batch.ledger import Ledger
from tests.exports import TEXTS, draw, run, run_all, tree


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


def test_the_summary_and_the_sheet_report_results(photos: Path, tmp_path: Path) -> None:
    summary = run_all(photos, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    assert report["images"] == summary.images == 7
    assert set(report["texts"]) == set(TEXTS)
    assert report["texts"]["a red square"]["images"] >= 4
    assert PIL.Image.open(tmp_path / "out" / "contact_sheet.png").size[0] > 600
    assert not (tmp_path / "out" / "failures.jsonl").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("rows"),
        lambda record: record.update(rows={"a": 1}),
        lambda record: record.update(size=[10**9, 10**9]),
        lambda record: record.update(size=["26", 64]),
        lambda record: record["rows"][0].update(box=[0, 0, 9999, 9999]),
        lambda record: record["rows"][0].update(text="not a prompt"),
        lambda record: record["rows"][0].update(similarity="x"),
        lambda record: record["rows"][0]["rle"].update(counts=""),
        lambda record: record["rows"][0]["rle"].update(counts="0"),
        lambda record: record["rows"][0]["rle"].update(counts="zzzz"),
        lambda record: record["rows"][0]["rle"].update(counts=None),
        lambda record: record["rows"].append([]),
    ],
)
def test_fault_17_5_an_invalid_record_is_made_again(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    out = tmp_path / "out"
    run(folder, out)
    wanted = tree(out)
    with sqlite3.connect(out / ".segclip" / "journal.sqlite") as table:
        (packed,) = table.execute(
            "SELECT rest FROM outcomes WHERE name = ?", (b"a.png",)
        ).fetchone()
        rest = json.loads(zlib.decompress(packed))
        change(rest["record"])
        packed = zlib.compress(json.dumps(rest).encode())
        table.execute("UPDATE outcomes SET rest = ? WHERE name = ?", (packed, b"a.png"))
    assert run(folder, out).progress.now == 1
    assert tree(out) == wanted


def test_run_lengths_of_every_mask_are_sound(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "out")
    ledger = Ledger(tmp_path / "out/.segclip/journal.sqlite", tmp_path / "out/.segclip/files.jsonl")
    for item in plan.read(folder, Ask(TEXTS)):
        known = ledger.get(item.name)
        assert known is not None
        assert collect.is_record(known.record, item, 10**6)
    ledger.close()
