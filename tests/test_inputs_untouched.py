"""Standing test: an export changes only its own files in OUT, wherever INPUT is.

Faults 17.1 (originals destroyed), 17.2 (foreign journals), 17.4 (OUT inside INPUT).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from segclip.batch import ExportOptions, export
from segclip.errors import BadPrompt, BadTable, NotWritable, SegclipError
from segclip.files import listing
from segclip.files.formats import PER_IMAGE, PER_RUN
from tests.exports import FORMATS, draw, photos, run, snapshot, tree

pytestmark = pytest.mark.usefixtures("fake_models")
EVERY = tuple(dict.fromkeys((*PER_IMAGE, *PER_RUN)))


@pytest.mark.parametrize("format", [*EVERY, ",".join(EVERY)])
def test_fault_17_1_no_format_changes_an_input_or_anything_beside_out(
    tmp_path: Path, format: str
) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    before = snapshot(tmp_path)
    run(folder, out, formats=tuple(format.split(",")))
    assert snapshot(tmp_path, but=out) == before


@pytest.mark.parametrize("where", ["yolo/images", "yolo", "png", "png/sub", "yolo/images/images"])
def test_fault_17_1_input_where_a_format_is_written_is_refused(tmp_path: Path, where: str) -> None:
    folder = photos(tmp_path / "X" / where)
    before = snapshot(tmp_path)
    with pytest.raises(NotWritable, match="choose another"):
        run(folder, tmp_path / "X", formats=("png", "yolo"))
    assert snapshot(tmp_path) == before


def test_fault_17_1_input_inside_out_is_only_read(tmp_path: Path) -> None:
    folder = photos(tmp_path / "X" / "yolo" / "images")
    before = snapshot(folder)
    for formats in (("png", "coco"), ("coco",), ("png", "coco")):
        run(folder, tmp_path / "X", formats=formats)
        assert snapshot(folder) == before


@pytest.mark.parametrize(
    "row", ["../photos/a.png", "../../{up}/photos/a.png", "x/../../photos/a.png", "{abs}/a.png"]
)
def test_fault_17_1_rows_that_climb_stay_inside_out(tmp_path: Path, row: str) -> None:
    photos(tmp_path / "photos")
    table = tmp_path / "lists" / "t.csv"
    table.parent.mkdir()
    (tmp_path / "lists" / "x").mkdir()
    out = tmp_path / "out"
    row = row.format(up=tmp_path.name, abs=tmp_path / "photos")
    for relative in (False, True):  # also with ".." in the path of the table
        table.write_text(f"image\n{row}\n")
        before = snapshot(tmp_path, but=out)
        given = Path(os.path.relpath(table)) if relative else table
        assert run(given, out, formats=EVERY).states["matched"] == 1
        assert snapshot(tmp_path, but=out) == before
        assert all(".." not in Path(name).parts for name in tree(out))


def test_fault_17_1_globs_that_climb_stay_inside_out(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    out = tmp_path / "deep" / "out"
    before = snapshot(tmp_path)
    run(f"{tmp_path}/*/../photos/*.png", out, formats=EVERY)
    assert snapshot(tmp_path, but=tmp_path / "deep") == before
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize(
    "name",
    [
        "coco.json",
        "summary.json",
        "contact_sheet.png",
        "regions.parquet",
        "png/a.png.mask.00.png",
        "yolo/data.yaml",
        "yolo/labels/a.txt",
        "yolo/images/a.png",
        "npz/sub dir",
    ],
)
def test_fault_17_1_a_users_own_file_in_out_is_never_overwritten(tmp_path: Path, name: str) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    own = out / name
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    for texts in ((), ("a green square", "a red square")):
        with pytest.raises(NotWritable, match="move or delete"):
            run(folder, out, *texts)
        assert own.read_bytes() == b"mine"
    own.unlink()
    run(folder, out)
    run(folder, tmp_path / "clean")
    assert tree(out) == tree(tmp_path / "clean")


def test_fault_17_1_users_files_beside_the_runs_stay(tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    mine = ("notes.txt", "png/mine.png", "yolo/labels/mine.txt", "labels/a.txt", "png/mine/a.png")
    for name in mine:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    run(folder, out)
    run(folder, out, "a green square", formats=("npz",))
    assert all((out / name).read_text() == "mine" for name in mine)


@pytest.mark.parametrize("name", ["png", "yolo", "yolo/images", ".segclip", "npz/sub dir"])
def test_fault_17_1_a_link_in_out_leads_nowhere(tmp_path: Path, name: str) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "journal.sqlite").write_text("precious")
    (out / name).parent.mkdir(parents=True)
    (out / name).symlink_to(tmp_path / "elsewhere")
    before = snapshot(tmp_path, but=out)
    with pytest.raises(NotWritable, match="is a link"):
        run(folder, out)
    assert snapshot(tmp_path, but=out) == before


@pytest.mark.parametrize(
    "name", ["journal.sqlite", "files.jsonl", "all.lock", "begin.lock", "parts-all", "x"]
)
def test_fault_17_1_a_link_in_the_state_folder_leads_nowhere(tmp_path: Path, name: str) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    (out / ".segclip").mkdir(parents=True)
    (tmp_path / "precious.txt").write_text("precious")
    (out / ".segclip" / name).symlink_to(tmp_path / "precious.txt")
    with pytest.raises(NotWritable, match="is a link"):
        run(folder, out)
    assert (tmp_path / "precious.txt").read_text() == "precious"


FOREIGN = (
    "../precious.txt",
    "png/../../precious.txt",
    "{abs}",
    "notes.txt",
    "png/../notes.txt",
    ".segclip/x",
    "png",
)


def by_table(out: Path, path: str) -> None:
    with sqlite3.connect(out / ".segclip" / "journal.sqlite") as table:
        for owner in (b"a.png", b"", b"gone.png"):
            values = (os.fsencode(path), owner, 8, "0" * 64, 0, 0, 0)
            table.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            table.commit()


def by_list(out: Path, path: str) -> None:
    with (out / ".segclip" / "files.jsonl").open("a") as file:
        file.writelines(json.dumps([owner, path]) + "\n" for owner in ("a.png", "", "gone.png"))
    (out / ".segclip" / "journal.sqlite").write_bytes(b"no journal at all")


@pytest.mark.parametrize("write", [by_table, by_list])
@pytest.mark.parametrize("path", FOREIGN)
def test_fault_17_2_a_foreign_journal_deletes_nothing(
    tmp_path: Path, path: str, write: Callable[[Path, str], None]
) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    run(folder, out)
    precious = [tmp_path / "precious.txt", out / "notes.txt", out / "png" / "own.txt"]
    for place in precious:
        place.write_text("precious")
    write(out, path.format(abs=tmp_path / "precious.txt"))
    before = snapshot(tmp_path, but=out)
    run(folder, out, "a green square")
    assert snapshot(tmp_path, but=out) == before
    assert all(place.read_text() == "precious" for place in precious)


def test_fault_17_2_no_foreign_rollback_file_makes_sqlite_delete(tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    run(folder, out)
    precious = tmp_path / "precious.txt"
    precious.write_text("precious")
    name = os.fsencode(precious)
    head = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + (0).to_bytes(4, "big") * 2 + (1).to_bytes(4, "big")
    head = head.ljust(512, b"\0")
    tail = (
        name
        + len(name).to_bytes(4, "big")
        + (sum(name)).to_bytes(4, "big")
        + b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
    )
    (out / ".segclip" / "journal.sqlite-journal").write_bytes(head + (2).to_bytes(4, "big") + tail)
    run(folder, out)
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("owner", [b"a.png", b"", b"gone.png"])
def test_a_foreign_journal_deletes_no_file_that_segclip_did_not_write(
    tmp_path: Path, owner: bytes
) -> None:
    """Export fault 3: a row that matches neither a file's size nor its bytes is ignored."""
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    run(folder, out)
    names = ("png/precious.png", "yolo/labels/precious.txt", "regions.jsonl")
    with sqlite3.connect(out / ".segclip" / "journal.sqlite") as table:
        for name in names:
            (out / name).write_text("precious")
            row = (os.fsencode(name), owner, 8, "0" * 64, 0, 0, 0)
            table.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    table.close()
    for texts in ((), ("a green square",)):
        run(folder, out, *texts)
        assert [(out / name).read_text() for name in names] == ["precious"] * 3


def by_hand(place: Path) -> None:
    place.write_text("0 .1 .1 .9 .1 .9 .9\n")


def an_original(place: Path) -> None:
    photo = place.parent / "taken.png"
    draw(photo, "green", "red", "green")
    photo.replace(place)


def fewer_lines(place: Path) -> None:
    place.write_bytes(place.read_bytes().partition(b"\n")[0] + b"\n")


@pytest.mark.parametrize("damage", [False, True])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("yolo/images/a.png", an_original),
        ("yolo/labels/a.txt", by_hand),
        ("yolo/labels/a.txt", fewer_lines),
        ("yolo/data.yaml", fewer_lines),
        ("png/a.png.mask.00.png", an_original),
        ("coco.json", by_hand),
    ],
)
def test_a_file_that_took_the_place_of_an_output_is_the_users(
    tmp_path: Path, name: str, change: Callable[[Path], None], damage: bool
) -> None:
    """Export fault 2: a label edited by hand, an original moved onto its link."""
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    run(folder, out)
    change(out / name)
    mine = (out / name).read_bytes()
    if damage:  # then only the list of files records their owners
        (out / ".segclip" / "journal.sqlite").write_bytes(b"no journal at all")
    with pytest.raises(NotWritable, match=f"{name}.*not as segclip wrote it"):
        run(folder, out)
    assert (out / name).read_bytes() == mine
    run(folder, out, "a green square", formats=("npz",))  # this run would only remove it
    assert not (out / name).is_symlink()
    assert (out / name).read_bytes() == mine


def test_an_original_that_was_moved_into_the_data_set_is_kept(tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    run(folder, out, formats=("yolo", "png"))
    original = (folder / "a.png").read_bytes()
    (folder / "a.png").replace(out / "yolo" / "images" / "a.png")  # takes the place of the link
    run(folder, out, formats=("yolo", "png"))
    assert (out / "yolo" / "images" / "a.png").read_bytes() == original
    assert not (out / "yolo" / "labels" / "a.txt").exists()


def test_fault_17_4_out_inside_input_is_no_input(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    out = folder / "masks"
    formats = ("png", "overlay", "yolo", "coco")
    run(folder, out, formats=formats)
    first = tree(out)
    for _ in range(2):
        assert run(folder, out, formats=formats).images == 5
        assert tree(out) == first
    for given in (f"{folder}/**/*.png", f"{folder}/**/*"):
        again = tmp_path / "again"
        assert run(given, again, formats=formats).images <= 5
        assert run(given, out, formats=formats).images <= 5


def test_fault_17_4_input_that_is_out_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos(tmp_path / "photos")
    before = snapshot(folder)
    monkeypatch.chdir(folder)
    trees = []
    for _ in range(3):
        assert export(".", ".", "a red square", options=ExportOptions(formats=FORMATS)).images == 5
        trees.append(tree(folder))
    assert trees[0] == trees[1] == trees[2]
    assert {path: digest for path, digest in snapshot(folder).items() if path in before} == before
    assert run("**/*", Path(), "a red square").images == 5
    assert tree(folder) == trees[0]


def test_fault_17_4_outputs_of_earlier_runs_are_no_inputs(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    run(folder, folder / "first", formats=("overlay", "yolo"))
    draw(folder / "segclip-out" / "a.overlay.png", "red")
    draw(folder / ".segclip-index" / "x.png", "red")
    assert run(folder, tmp_path / "out").images == 5
    assert run(f"{folder}/**/*", tmp_path / "out").images == 5
    assert len(listing.list_images(folder).images) == 5
    run(folder, folder, formats=("overlay", "yolo", "png"))  # the input itself was an output
    for given in (folder, f"{folder}/**/*"):
        assert run(given, tmp_path / "other").images == 5


def test_fault_17_4_a_table_that_names_an_output_is_refused(tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    run(folder, out, formats=("png", "coco", "jsonl"))
    (tmp_path / "t.txt").write_text(f"photos/a.png\n{out}/png/a.png.mask.00.png\n")
    before = snapshot(out / "png")
    with pytest.raises(BadTable, match="images of your own"):
        run(tmp_path / "t.txt", out, formats=("coco",))
    with pytest.raises(SegclipError):  # its own table would be replaced while it is read
        run(out / "regions.jsonl", out, formats=("jsonl",))
    assert snapshot(out / "png") == before


def test_an_input_that_is_empty_now_removes_nothing(tmp_path: Path) -> None:
    """A mount point without its disk must not cost its outputs."""
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    run(folder, out)
    before = tree(out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadPrompt, match="left as it is"):
        run(tmp_path / "empty", out)
    assert tree(out) == before
