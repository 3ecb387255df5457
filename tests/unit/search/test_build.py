"""An index follows its folder: changes, kills, damage, and what it refuses to touch."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segclip import Index, IndexOptions, ModelSpec, find_matches, loading, make_index
from segclip.batch import Running
from segclip.batch.files import stamp_of
from segclip.errors import BadIndex, BadPrompt, NotWritable, SegclipError, UnknownName
from segclip.search import snapshot
from tests.indexes import (
    DEEP,
    answers,
    changed,
    contents,
    draw,
    embedded,
    empty,
    garble,
    halve,
    names,
    place,
    replace_by_pipe,
    square,
    zero,
)

ROOT = Path(__file__).parents[3]


def test_whole_images_do_not_need_a_proposer(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load", None)
    monkeypatch.setattr(loading, "fingerprint", None)
    make_index(photos)
    assert names(find_matches(photos, "a red square", n=1)) == ["red.png"]
    with pytest.raises(BadPrompt, match=r"segclip index .*photos --regions"):
        Index(photos).search("red", regions=True)


def test_only_what_changed_is_done_again(photos: Path) -> None:
    assert changed(make_index(photos, DEEP)) == (6, 0, 0, 0)
    before = contents(photos)
    assert changed(make_index(photos)) == (0, 7, 0, 0)  # regions are remembered
    assert contents(photos) == before

    draw(photos / "added.png", ("blue", (0, 0, 50, 50)))
    draw(photos / "red.png", ("blue", (10, 10, 110, 100)))
    (photos / "two.png").unlink()
    (photos / "green.png").rename(photos / "moved.png")
    os.utime(photos / "white.png", ns=(1, 1))
    assert changed(make_index(photos)) == (2, 5, 1, 1)
    index = Index(photos)
    assert sorted(index.images.names) == sorted(
        ["added.png", "moved.png", "red.png", "sub dir/black.png", "sub dir/é🦁.png", "white.png"]
    )
    assert {"added.png", "red.png"} == set(names(index.search("blue", n=2)))
    assert "red.png" not in names(
        tuple(m for m in index.search("red", regions=True) if m.probability > 0.5)
    )

    again = contents(photos)
    make_index(photos, IndexOptions(regions=True, rebuild=True))
    assert contents(photos) == again


def test_a_kill_at_any_moment_changes_nothing(photos: Path, tmp_path: Path) -> None:
    make_index(photos, DEEP)
    wanted = contents(photos)
    shutil.rmtree(photos / ".segclip-index")
    rng, kills = random.Random(6), 0
    for _ in range(10):
        count = str(rng.randint(1, 15))
        ended = index_in_a_process(photos, count)
        kills += ended == -signal.SIGKILL
        if ended == 0:  # it ended before that many changes: start over
            assert contents(photos) == wanted
            shutil.rmtree(photos / ".segclip-index")
    assert kills >= 5
    assert index_in_a_process(photos, "no") == 0
    assert contents(photos) == wanted


def test_two_processes_make_the_same_index(photos: Path) -> None:
    make_index(photos, DEEP)
    wanted = contents(photos)
    shutil.rmtree(photos / ".segclip-index")
    assert index_in_a_process(photos, "no", "2") == 0
    assert contents(photos) == wanted


def index_in_a_process(photos: Path, kill: str, workers: str = "1") -> int:
    command = [sys.executable, "-m", "tests.search_script", str(photos), kill, workers]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(UnknownName, match="numpy"):
        IndexOptions(engine="faiss")


def test_no_folder_an_empty_one_one_image_and_only_broken_ones(tmp_path: Path) -> None:
    with pytest.raises(BadPrompt, match="no such folder"):
        make_index(tmp_path / "nowhere")
    (tmp_path / "none").mkdir()
    done = make_index(tmp_path / "none", DEEP)
    assert (done.images, done.failed) == (0, ())
    assert find_matches(tmp_path / "none", "red") == ()
    draw(tmp_path / "one" / "red.png", ("red", (0, 0, 50, 50)))
    make_index(tmp_path / "one", DEEP)
    assert names(find_matches(tmp_path / "one", "a green thing")) == ["red.png"]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"")
    (tmp_path / "bad" / "b.png").symlink_to("nowhere.png")
    done = make_index(tmp_path / "bad", DEEP)
    assert (done.images, len(done.failed)) == (0, 2)
    assert find_matches(tmp_path / "bad", "red") == ()


@pytest.mark.parametrize("harm", [zero, halve, garble, empty, Path.unlink, replace_by_pipe])
@pytest.mark.parametrize("name", ["index.json", "current.json"])
def test_fault_17b_lost_records_are_restored_from_sound_ones(
    indexed: Path, name: str, harm: Callable[[Path], None]
) -> None:
    wanted = answers(indexed)
    harm(place(indexed) / name)
    with pytest.raises(SegclipError, match="segclip index"):
        Index(indexed)
    assert embedded(make_index(indexed)) == (0, 5)
    assert answers(indexed) == wanted


def test_fault_17b_a_lost_identity_is_not_guessed(indexed: Path) -> None:
    (place(indexed) / "index.json").write_text("{")
    shutil.rmtree(snapshot.current(place(indexed)))
    with pytest.raises(BadIndex, match=r"--encoder NAME .*--rebuild"):
        make_index(indexed)
    named = IndexOptions(ModelSpec(encoder="mini-clip"), regions=True)
    assert embedded(make_index(indexed, named)) == (0, 5)


@pytest.mark.parametrize("rebuild", [False, True])
def test_fault_17_1_an_index_is_not_made_among_files_of_the_users(
    tmp_path: Path, rebuild: bool
) -> None:
    folder = tmp_path / "w"
    for name in ("a.png", "snapshot-001.png", "snapshot-2024/b.png"):
        square(folder / name, "red")
    (folder / "index.json").write_text('{"my": "site"}')
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(NotWritable, match="no index of segclip's"):
        make_index(folder, IndexOptions(rebuild=rebuild), out=folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_fault_17_2_an_index_that_is_a_link_is_refused(indexed: Path, tmp_path: Path) -> None:
    place(indexed).rename(tmp_path / "elsewhere")
    place(indexed).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotWritable, match="--out"):
        make_index(indexed)
    assert make_index(indexed, out=tmp_path / "elsewhere").images == 5


def test_fault_17_4_outputs_of_segclip_are_no_inputs(indexed: Path, tmp_path: Path) -> None:
    before = answers(indexed)
    square(indexed / "segclip-out" / "red.overlay.png", "red")
    square(indexed / "sub" / "masks" / "png" / "red.png", "black")
    (indexed / "sub" / "masks" / ".segclip").mkdir()
    square(place(indexed) / "thumbnail.png", "blue")
    make_index(indexed, DEEP, out=indexed / "index of it")
    for _ in range(3):
        done = make_index(indexed)
        assert (embedded(done), done.moved, done.removed) == ((0, 5), 0, 0)
        assert make_index(indexed, out=indexed / "index of it").images == 5
        assert answers(indexed) == before


def _swap(path: Path, colour: str) -> None:
    """Replace an image by another of the same size in bytes and the same time."""
    former = path.stat()
    square(path.with_name("other.bmp"), colour)
    path.with_name("other.bmp").replace(path)
    os.utime(path, ns=(former.st_atime_ns, former.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (former.st_size, former.st_mtime_ns)


def test_fault_17_8_an_image_replaced_by_one_of_its_size_and_time(
    indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    square(indexed / "same.bmp", "red")
    make_index(indexed)
    _swap(indexed / "same.bmp", "green")
    assert embedded(make_index(indexed)) == (1, 5)
    assert {match.name for match in Index(indexed).search("green", n=2)} == {
        "green.png",
        "same.bmp",
    }
    # on a file system without change times and inodes, --verify reads everything
    for module in ("segclip.batch", "segclip.batch.work"):
        monkeypatch.setattr(f"{module}.stamp_of", lambda path: (*stamp_of(path)[:2], 0, 0))
    make_index(indexed)
    _swap(indexed / "same.bmp", "blue")
    assert embedded(make_index(indexed)) == (0, 6)
    assert embedded(make_index(indexed, running=Running(verify=True))) == (1, 5)
    assert {match.name for match in Index(indexed).search("blue", n=2)} == {
        "sub/blue.png",
        "same.bmp",
    }
