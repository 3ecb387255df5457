"""Inputs of a run: folders, globs, lists and tables, and the question of each image."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from segclip.batch import Ask
from segclip.batch.plan import Item, digest, read, shard
from segclip.errors import BadPrompt, BadTable
from tests.exports import (
    failures,
    run,
    tree,
)


def test_a_folder_is_walked_in_one_order(photos: Path) -> None:
    names = [item.name for item in read(photos, Ask(("x",)))]
    assert names == sorted(names, key=lambda name: Path(name).parts)
    assert len(names) == 7


def test_a_glob_a_list_and_a_table(photos: Path) -> None:
    ask = Ask(("x",))
    assert len(read(f"{photos}/**/*.png", ask)) == 5
    (photos / "list.txt").write_text("a.png\nsub dir/c.png\n")
    assert [item.name for item in read(photos / "list.txt", ask)] == ["a.png", "sub dir/c.png"]
    (photos / "t.jsonl").write_text(
        '{"image": "a.png", "texts": ["one; two"], "points": [[3, 4, 0]]}\n{"image": "f.png", '
        '"boxes": "1,2,3,4"}\n'
    )
    first, second = read(photos / "t.jsonl", ask)
    assert first.ask == Ask(("one; two",), (), ((3.0, 4.0, 0.0),))
    assert second.ask == Ask(("x",), ((1.0, 2.0, 3.0, 4.0),))


def test_fault_17_13_a_glob_follows_no_links_and_warns(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "l").symlink_to(photos, target_is_directory=True)
    (photos / "sub dir" / "m").symlink_to("..", target_is_directory=True)
    assert len(read(f"{photos}/**/*.png", Ask(("x",)))) == 5
    assert "left out 2 (l, sub dir/m): links to folders are not followed" in caplog.text


def test_boxes_of_a_table_go_to_the_images_of_their_names(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text('image,boxes\na.png,"1,2,30,40; 5,6,70,80"\n')
    items = {
        item.name: item.ask for item in read(photos, Ask(("x",)), boxes=tmp_path / "boxes.csv")
    }
    assert len(items["a.png"].boxes) == 2
    assert not items["f.png"].boxes
    (tmp_path / "boxes.csv").write_text('image,boxes\nz.png,"1,2,30,40"\n')
    with pytest.raises(BadTable, match=r"z\.png"):
        read(photos, Ask(("x",)), boxes=tmp_path / "boxes.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image\na.png\na.png\n", "twice"),
        ("picture\na.png\n", "unknown column 'picture'"),
        ('image,boxes\na.png,"1,2,3"\n', "row 1 .*'boxes': expected a box x1,y1,x2,y2"),
        ('image,points\na.png,"1,x"\n', "row 1 .*'points'"),
    ],
)
def test_an_invalid_table_is_refused(photos: Path, content: str, message: str) -> None:
    (photos / "t.csv").write_text(content)
    with pytest.raises((BadPrompt, BadTable), match=message):
        read(photos / "t.csv", Ask(("x",)))


def test_shards_cover_all_images(photos: Path) -> None:
    items = read(photos, Ask(("x",)))
    parts = [shard(items, f"{i}/3") for i in (1, 2, 3)]
    assert sorted(item.name for part in parts for item in part) == sorted(
        item.name for item in items
    )


def test_the_digest_depends_on_all_that_matters() -> None:
    digests = {
        digest(Ask(("a",)), {}),
        digest(Ask(("b",)), {}),
        digest(Ask(("a",), ((1, 2, 3, 4),)), {}),
        digest(Ask(("a",)), {"threshold": 0.2}),
        digest(Ask(("a",), everything=True), {}),
    }
    assert len(digests) == 5


def test_fault_17_21_an_unreadable_folder_is_reported_and_loses_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(folder, out)
    wanted = tree(out)

    scandir = os.scandir

    def stale(place: Any = ".") -> Any:
        if str(place).rstrip("/") == str(folder / "sub dir"):
            raise OSError(errno.ESTALE, "Stale file handle", str(place))
        return scandir(place)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", stale)
        for _ in range(2):
            summary = run(folder, out)
            assert summary.states["failed"] == 1
            assert set(failures(out)) == {"sub dir", "sub dir/d.png", "sub dir/e é.gif"}
            assert not (out / "yolo" / "images" / "sub dir").exists()
            assert (out / "png" / "sub dir" / "d.png.mask.00.png").exists()
    assert run(folder, out).progress.now == 0
    assert tree(out) == wanted


@pytest.mark.parametrize(
    "text", ["a  red square", " a red square", "a red\tsquare\n", "a\u00a0red square"]
)
def test_blanks_in_a_text_are_one(folder: Path, tmp_path: Path, text: str) -> None:
    """Export fault 5: it ends, a rerun is idle, the output is that of the plain text."""
    out, formats = tmp_path / "out", ("png", "coco", "yolo", "jsonl", "parquet")
    run(folder, tmp_path / "clean", "a red square", "a blue square", formats=formats)
    texts = (text, "a red square", "a blue square")
    assert run(folder, out, *texts, formats=formats).missing == 0
    assert run(folder, out, "a red square", "a blue square", formats=formats).progress.now == 0
    assert tree(out) == tree(tmp_path / "clean")


def test_blanks_in_the_texts_of_a_table_are_one(folder: Path, tmp_path: Path) -> None:
    """Export fault 5."""
    table = folder / "t.jsonl"
    table.write_text(
        json.dumps({"image": "a.png", "texts": ["a  red\tsquare", "a red square"]}) + "\n"
    )
    assert run(table, tmp_path / "out", formats=("coco",)).missing == 0
    coco = json.loads((tmp_path / "out" / "coco.json").read_text("utf-8"))
    assert [category["name"] for category in coco["categories"]] == ["a red square"]
    assert run(table, tmp_path / "out", formats=("coco",)).progress.now == 0


def test_the_row_of_an_invalid_text_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "t.jsonl").write_text(json.dumps({"image": "a.png", "texts": ["x" * 2000]}) + "\n")
    with pytest.raises(BadTable, match="row 1"):
        run(folder / "t.jsonl", tmp_path / "out")


def test_an_item_is_placed_by_its_name_by_default() -> None:
    assert Item(Path("x/a.png"), "a.png", Ask()).place == "a.png"
    assert Item(Path("x/a.png"), "a.png", Ask(), "b.png").place == "b.png"
