"""Search: the index follows its folder, survives kills, and NumPy and LanceDB agree."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from segclip import Filter, Index, IndexOptions, Query, find_matches, loading, make_index
from segclip.errors import BadIndex, BadPrompt, UnknownName
from segclip.search import checked, lance, results, snapshot, store
from segclip.search.build import Indexed
from segclip.search.store import Exact, ImageTable, Vectors
from tests import search_script
from tests.fakes import COLOURS, FakeEncoder, paint

pytestmark = pytest.mark.usefixtures("fake_models")
ROOT = Path(__file__).parents[3]
DEEP = IndexOptions(regions=True)


@pytest.fixture(autouse=True)
def fake_encoders(monkeypatch: pytest.MonkeyPatch, fake_models: None) -> None:
    monkeypatch.setattr(loading, "load_encoder", search_script.fake_encoder)
    monkeypatch.setattr(loading, "encoder_fingerprint", search_script.fake_hash)


def draw(path: Path, *shapes: tuple[str, tuple[int, int, int, int]], taken: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = PIL.Image.Exif()
    if taken:
        exif[0x0132] = taken
    PIL.Image.fromarray(paint(*shapes).pixels).save(path, exif=exif)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Draw six images, one of them with a small blue object, and a broken one."""
    folder = tmp_path / "photos"
    draw(folder / "red.png", ("red", (10, 10, 110, 100)), taken="2024:05:01 10:00:00")
    draw(folder / "green.png", ("green", (10, 10, 110, 100)), taken="2025:05:01 10:00:00")
    draw(folder / "two.png", ("red", (0, 0, 50, 50)), ("yellow", (60, 0, 150, 110)))
    draw(
        folder / "sub dir" / "é🦁.png", ("green", (0, 0, 140, 110)), ("blue", (146, 100, 156, 110))
    )
    draw(folder / "sub dir" / "black.png", ("black", (0, 0, 120, 110)))
    draw(folder / "white.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return the snapshot's files, prefixed with its name, which depends on the content."""
    place = snapshot.current(folder / ".segclip-index")
    return {f"{place.name}/{path.name}": path.read_bytes() for path in sorted(place.iterdir())}


def names(found: tuple[object, ...]) -> list[str]:
    return [match.name for match in found]  # type: ignore[attr-defined]


def changed(done: Indexed) -> tuple[int, int, int, int]:
    return done.progress.matched, done.progress.before, done.moved, done.removed


def test_a_text_finds_its_image_and_the_region_of_the_object(photos: Path) -> None:
    done = make_index(photos, DEEP)
    assert (done.images, len(done.failed), done.engine) == (6, 1, "numpy")
    assert "broken.jpg" in done.failed[0]

    index = Index(photos)
    assert names(index.search("a black square", n=1)) == ["sub dir/black.png"]
    whole = index.search("a blue square", n=9)
    deep = find_matches(index, "a blue square")
    assert deep[0].name == "sub dir/é🦁.png"
    assert deep[0].path == photos / "sub dir" / "é🦁.png"
    assert deep[0].box == (146, 100, 156, 110)
    assert deep[0].probability > 0.9
    assert whole[0].similarity < deep[0].similarity
    assert index.masks(deep[0]).areas.tolist() == [100]
    assert len({match.name for match in deep}) == len(deep)  # each image once


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
        ended = _script(photos, count)
        kills += ended == -signal.SIGKILL
        if ended == 0:  # it ended before that many changes: start over
            assert contents(photos) == wanted
            shutil.rmtree(photos / ".segclip-index")
    assert kills >= 5
    assert _script(photos, "no") == 0
    assert contents(photos) == wanted


def test_two_processes_make_the_same_index(photos: Path) -> None:
    make_index(photos, DEEP)
    wanted = contents(photos)
    shutil.rmtree(photos / ".segclip-index")
    assert _script(photos, "no", "2") == 0
    assert contents(photos) == wanted


def _script(photos: Path, kill: str, workers: str = "1") -> int:
    command = [sys.executable, "-m", "tests.search_script", str(photos), kill, workers]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode


def test_whole_images_are_embedded_in_batches_and_a_failing_one_alone(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Picky(FakeEncoder):
        def encode_images(self, crops: Any) -> Any:
            if any((crop == COLOURS["black"]).all(axis=2).mean() > 0.5 for crop in crops):
                raise RuntimeError("it chokes on black")
            return super().encode_images(crops)

    encoder = Picky()
    monkeypatch.setattr(loading, "load_encoder", lambda *names, **options: encoder)
    for number in range(12):
        draw(photos / f"{number:02d}.png", ("red", (0, 0, 50 + number, 50)))
    done = make_index(photos)
    assert done.images == 17
    assert len(done.failed) == 2
    assert any("chokes on black" in reason for reason in done.failed)
    # a constant batch size, so that the last bits do not depend on what is resumed
    assert set(encoder.crops_seen) == {8}


def test_another_encoder_is_refused_with_the_command_that_rebuilds(
    photos: Path, tmp_path: Path
) -> None:
    make_index(photos)
    for refused in (
        lambda: make_index(photos, IndexOptions(encoder="other")),
        lambda: Index(photos, encoder="other").search("red"),
    ):
        with pytest.raises(BadPrompt, match=r"segclip index \S*photos --encoder other --rebuild"):
            refused()
    make_index(photos, IndexOptions(encoder="other", rebuild=True))
    assert Index(photos).identity.encoder == "other"
    make_index(photos, out=tmp_path / "index")
    with pytest.raises(BadPrompt, match="photos --out "):
        Index(tmp_path / "index", encoder="third").search("red")
    make_index(
        photos,
        IndexOptions(regions=True, policy="tight", engine="numpy"),
        out=tmp_path / "the index",
    )
    kept = (
        r"--out .*the index. --regions --proposer \S+ --policy tight --engine numpy --encoder "
        r"third --rebuild"
    )
    with pytest.raises(BadPrompt, match=kept):
        Index(tmp_path / "the index", encoder="third").search("red")


def test_an_index_beside_its_folder_and_one_that_moved_with_it(
    photos: Path, tmp_path: Path
) -> None:
    make_index(photos, DEEP, out=tmp_path / "beside")
    assert not (photos / ".segclip-index").exists()
    assert find_matches(tmp_path / "beside", "red")[0].path.is_file()
    make_index(photos)
    moved = photos.rename(tmp_path / "elsewhere")
    assert find_matches(moved, "red")[0].path.is_file()


def test_an_index_that_cannot_be_written_is_searched(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_index(photos, DEEP)
    wanted = find_matches(photos, "a blue square")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert find_matches(photos, "a blue square") == wanted


def test_negatives_images_and_both(photos: Path) -> None:
    make_index(photos, DEEP)
    index = Index(photos)
    found = index.search(Query("red yellow"), n=3)
    assert "two.png" in names(found)
    without = index.search(Query("red", negatives=("yellow",)), n=9)
    assert "two.png" not in names(without)  # more yellow than red
    assert names(without)[0] == "red.png"
    alike = index.search(Query(image=photos / "green.png"), n=2)
    assert names(alike)[0] == "green.png"
    assert alike[0].similarity == pytest.approx(1, abs=1e-3)
    both = index.search(Query("blue", image=photos / "green.png"), n=9, regions=True)
    assert names(index.search(Query("blue"), n=1, regions=True)) == ["sub dir/é🦁.png"]
    assert both[0].name == "sub dir/é🦁.png"
    assert [match.similarity for match in both] == sorted(
        (match.similarity for match in both), reverse=True
    )
    with pytest.raises(BadPrompt, match="both asked for and ruled out"):
        index.search(Query("red", negatives=("red",)))


def test_filters(photos: Path) -> None:
    draw(photos / "sub" / "red.png", ("red", (0, 0, 50, 50)))
    make_index(photos, DEEP)
    index = Index(photos)

    def found(where: Filter) -> set[str]:
        return set(names(index.search("red", where=where)))

    assert found(Filter(folder="sub dir/")) == {"sub dir/black.png", "sub dir/é🦁.png"}
    assert found(Filter(folder="none")) == set()
    assert found(Filter(before=date(2024, 5, 1))) == {"red.png"}
    assert found(Filter(after=date(2024, 5, 2), before=date(2025, 5, 1))) == {"green.png"}
    assert found(Filter(min_side=121)) == set()
    assert len(found(Filter(min_side=120, max_side=160))) == 7
    assert found(Filter(max_side=159)) == set()


def test_lancedb_agrees_with_numpy(photos: Path) -> None:
    pytest.importorskip("lancedb")
    draw(photos / "it's" / "red.png", ("red", (0, 0, 50, 50)))
    queries = [
        (text, deep) for text in ("red", "a blue square", "green yellow") for deep in (True, False)
    ]
    wheres = (
        Filter(),
        Filter(folder="it's"),
        Filter(before=date(2024, 5, 1)),
        Filter(min_side=121),
    )
    answers = []
    for engine in ("numpy", "lancedb"):
        assert make_index(photos, IndexOptions(regions=True, engine=engine)).engine == engine
        index = Index(photos)
        answers.append(
            [
                index.search(text, regions=deep, where=where)
                for text, deep in queries
                for where in wheres
            ]
        )
    for exact, other in zip(*answers, strict=True):
        assert names(exact) == names(other)
        assert [m.similarity for m in exact] == pytest.approx(
            [m.similarity for m in other], abs=1e-5
        )
        assert [m.box for m in exact] == [m.box for m in other]


def test_an_indexed_table_finds_nearly_all_and_keeps_to_its_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lancedb")
    monkeypatch.setattr(lance, "INDEXED_FROM", 3000)
    monkeypatch.setattr(lance, "CELL", 50)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 16))[rng.integers(100, size=3000)] + 0.5 * rng.normal(
        size=(3000, 16)
    )
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    sample_image = np.arange(3000, dtype=np.int32)
    names = tuple(f"{'rare' if n % 1000 == 7 else 'often'}/{n}.png" for n in range(3000))
    pictures = ImageTable(names, np.zeros(3000), np.full((3000, 2), 9))
    vectors = Vectors(rows, sample_image, np.full_like(sample_image, -1), np.ones(3000, np.float32))
    assert lance.write(tmp_path, "images", iter([vectors]), pictures, 16) == 3000
    near, exact = lance.Lance(tmp_path, "images", pictures, length=3000), Exact(vectors, pictures)
    found = [
        len(set(near.nearest(q, 10).image) & set(exact.nearest(q, 10).image)) for q in rows[:50]
    ]
    assert np.mean(found) > 9
    assert sorted(near.nearest(rows[0], 10, Filter(folder="rare")).image) == [7, 1007, 2007]


def test_the_nearest_are_exact_and_in_order() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 16)).astype(np.float32)
    rows[100] = rows[50]  # a tie
    sample_image = np.arange(500, dtype=np.int32)
    pictures = ImageTable(
        tuple(f"{n}.png" for n in range(500)), np.zeros(500), np.full((500, 2), 9)
    )
    table = Exact(Vectors(rows, sample_image, sample_image, np.ones(500, np.float32)), pictures)
    wanted = np.argsort(-(rows @ rows[50]), kind="stable")
    for count in (0, 1, 7, 499, 500, 900):
        assert table.nearest(rows[50], count).image.tolist() == wanted[:count].tolist()


def test_an_empty_folder_one_image_and_only_broken_ones(tmp_path: Path) -> None:
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


def test_bad_queries(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BadPrompt, match="no such folder"):
        make_index(tmp_path / "nowhere")
    with pytest.raises(UnknownName, match="numpy"):
        IndexOptions(engine="faiss")
    with pytest.raises(BadPrompt, match="segclip index FOLDER"):
        Index(photos)
    make_index(photos)
    index = Index(photos)
    for query in ("", "   "):
        with pytest.raises(BadPrompt, match="no text or image was given"):
            index.search(query)
    with pytest.raises(BadPrompt, match="n must be 1 or more"):
        index.search("red", n=0)
    assert names(index.search("red " * 5000, n=1)) == ["red.png"]
    assert "read only up to" in caplog.text
    (photos / ".segclip-index" / "index.json").write_text("{")
    with pytest.raises(BadIndex, match="damaged"):
        Index(photos)


def test_results_are_drawn_recorded_copied_and_linked(photos: Path, tmp_path: Path) -> None:
    make_index(photos, DEEP)
    index = Index(photos)
    found = index.search("a blue square", n=4, regions=True)
    sheet = results.write_sheet(index, found, tmp_path / "out" / "sheet.png")
    assert PIL.Image.open(sheet).width == 960  # three columns
    records = json.loads(json.dumps(results.to_records(index, found)))
    assert records[0]["box"] == [146, 100, 156, 110]
    assert records[0]["rle"]["size"] == [120, 160]
    copies = results.gather(found, tmp_path / "copies")
    assert copies[0].name == "1 é🦁.png"
    assert copies[0].read_bytes() == found[0].path.read_bytes()
    links = results.gather(found, tmp_path / "links", link=True)
    assert links[0].resolve() == found[0].path.resolve()
    with pytest.raises(BadPrompt, match="not an empty folder"):
        results.gather(found, tmp_path / "copies")
    with pytest.raises(BadPrompt, match=r"\.png or \.jpg"):
        results.write_sheet(index, found, tmp_path / "sheet.tiff2")
    found[0].path.unlink()  # deleted since indexing
    assert results.draw(index, found).width == 960


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    numbers = np.arange(5, dtype=np.int32)
    wanted = Vectors(
        rng.normal(size=(5, 3)).astype(np.float32),
        numbers,
        np.full(5, -1, np.int32),
        rng.random(5).astype(np.float32),
    )
    names = ("a", "b\udce9", "c", "d", "e")
    pictures = ImageTable(
        names, np.array([1.5, 2, 3, 4, 5]), np.array([[3, 4], [5, 6]] * 2 + [[7, 8]], np.int32)
    )
    assert store.write_exact(tmp_path, "images", [wanted[:2], wanted[2:]]) == 5  # type: ignore[index]
    store.write_exact(tmp_path, "regions", [])
    written = {
        "engine": "numpy",
        "dim": 3,
        "images": 5,
        "regions": 0,
        "files": checked.checksums(tmp_path),
    }
    store.write_images(tmp_path, pictures, written)
    read, facts = store.read_images(tmp_path)
    assert (read.names, facts) == (pictures.names, written)
    assert checked.damage(tmp_path, facts["files"]) == ""
    table = store.open_exact(tmp_path, "images", read, dim=3, length=5)
    for column in ("embeddings", "image", "region", "quality"):
        assert np.array_equal(getattr(table.vectors, column), getattr(wanted, column))
