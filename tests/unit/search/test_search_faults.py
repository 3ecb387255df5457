"""Fault 17: an index that is damaged or untrusted, or whose images are temporarily unreachable."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from segclip import Filter, Index, IndexOptions, find_matches, loading, make_index
from segclip.batch import Running
from segclip.batch.files import stamp_of
from segclip.batch.journal import salvage
from segclip.errors import BadIndex, BadPrompt, NotWritable, SegclipError
from segclip.files import atomic
from segclip.search import checked, results, rows, snapshot
from segclip.search.build import INSIDE, Indexed
from tests import search_script
from tests.fakes import paint

pytestmark = pytest.mark.usefixtures("fake_models")
DEEP = IndexOptions(regions=True)
COLOURS = ("red", "green", "blue", "yellow", "black")


@pytest.fixture(autouse=True)
def fake_encoders(monkeypatch: pytest.MonkeyPatch, fake_models: None) -> None:
    monkeypatch.setattr(loading, "load_encoder", search_script.fake_encoder)
    monkeypatch.setattr(loading, "encoder_fingerprint", search_script.fake_hash)


def draw(path: Path, colour: str, side: int = 60) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(paint((colour, (5, 5, side, side)), size=(70, 70)).pixels).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Draw a few images, two of them in a sub-folder, and index them."""
    folder = tmp_path / "photos"
    for colour in COLOURS:
        draw(folder / ("sub" if colour in ("red", "blue") else ".") / f"{colour}.png", colour)
    make_index(folder, DEEP)
    return folder


def place(photos: Path) -> Path:
    return photos / INSIDE


def embedded(done: Indexed) -> tuple[int, int]:
    return done.progress.matched, done.progress.before


def answers(photos: Path) -> list[tuple[Any, ...]]:
    index = Index(photos)
    found = [
        index.search(colour, n=9, regions=deep) for colour in COLOURS for deep in (False, True)
    ]
    return [(m.name, m.similarity, m.region, m.box, m.size) for matches in found for m in matches]


def forge(photos: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change pictures.json, and update the checksums as an attacker would."""
    folder = snapshot.current(place(photos))
    facts = json.loads((folder / "pictures.json").read_text("utf-8"))
    change(facts)
    facts["files"] = checked.checksums(folder)
    (folder / "pictures.json").write_text(json.dumps(facts), "utf-8")
    crc = zlib.crc32((folder / "pictures.json").read_bytes())
    (place(photos) / "current.json").write_text(
        json.dumps({"snapshot": folder.name, "checksum": crc})
    )


def _set(key: str, value: Any, facts: dict[str, Any]) -> None:
    facts[key] = value


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _garble(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _flip_one(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "harm", [_zero, _halve, _garble, _empty, Path.unlink, _replace_by_pipe, _flip_one]
)
@pytest.mark.parametrize(
    "name", ["images.f32", "images.rows", "regions.f32", "regions.rows", "pictures.json"]
)
def test_fault_17_3_lost_vectors_are_detected_and_rewritten(
    photos: Path, name: str, harm: Callable[[Path], None]
) -> None:
    wanted = answers(photos)
    harm(snapshot.current(place(photos)) / name)
    with pytest.raises(BadIndex, match="run segclip index again"):
        Index(photos)
    assert embedded(make_index(photos)) == (0, 5)  # every embedding is still there
    assert answers(photos) == wanted


@pytest.mark.parametrize("harm", [_zero, _halve, _garble, Path.unlink])
def test_fault_17_3_lost_files_of_lancedb_are_detected(
    photos: Path, harm: Callable[[Path], None]
) -> None:
    pytest.importorskip("lancedb")
    lancedb = IndexOptions(regions=True, engine="lancedb")
    assert make_index(photos, lancedb).engine == "lancedb"
    wanted = answers(photos)
    for number in range(8):
        files = sorted(
            path for path in snapshot.current(place(photos)).rglob("*") if path.is_file()
        )
        harm(files[number % len(files)])
        with pytest.raises(BadIndex, match="run segclip index again"):
            Index(photos)
        assert embedded(make_index(photos)) == (0, 5)
        assert answers(photos) == wanted


@pytest.mark.parametrize("harm", [_zero, _halve, _garble, _empty, Path.unlink, _replace_by_pipe])
@pytest.mark.parametrize("name", ["index.json", "current.json"])
def test_fault_17b_lost_records_are_restored_from_sound_ones(
    photos: Path, name: str, harm: Callable[[Path], None]
) -> None:
    wanted = answers(photos)
    harm(place(photos) / name)
    with pytest.raises(SegclipError, match="segclip index"):
        Index(photos)
    assert embedded(make_index(photos)) == (0, 5)
    assert answers(photos) == wanted


def test_fault_17b_a_lost_identity_is_not_guessed(photos: Path) -> None:
    (place(photos) / "index.json").write_text("{")
    shutil.rmtree(snapshot.current(place(photos)))
    with pytest.raises(BadIndex, match=r"--encoder NAME .*--rebuild"):
        make_index(photos)
    assert embedded(make_index(photos, IndexOptions(encoder="mini-clip", regions=True))) == (0, 5)


@pytest.mark.parametrize("where", [0.0, 0.6, 0.75, 0.9])
@pytest.mark.parametrize("harm", ["zero", "garble", "truncate"])
def test_fault_17_3_a_damaged_journal_keeps_its_sound_rows(
    tmp_path: Path, harm: str, where: float
) -> None:
    folder = tmp_path / "photos"
    for number in range(60):
        draw(folder / f"{number:02d}.png", COLOURS[number % 5], 8 + number)
    make_index(folder, DEEP)
    wanted, journal = answers(folder), place(folder) / rows.NAME
    data = bytearray(journal.read_bytes())
    start = round(where * len(data)) // 4096 * 4096
    if harm == "truncate":
        del data[start or 20_480 :]
    else:
        data[start : start + 4096] = (
            bytes(4096) if harm == "zero" else np.random.default_rng(0).bytes(4096)
        )
    journal.write_bytes(data)
    done = make_index(folder)
    assert done.images == 60
    assert done.progress.matched < 60  # some are kept ...
    assert answers(folder) == wanted  # ... and all are there again
    assert embedded(make_index(folder)) == (0, 60)


@pytest.mark.parametrize("rebuild", [False, True])
def test_fault_17_1_an_index_is_not_made_among_files_of_the_users(
    tmp_path: Path, rebuild: bool
) -> None:
    folder = tmp_path / "w"
    for name in ("a.png", "snapshot-001.png", "snapshot-2024/b.png"):
        draw(folder / name, "red")
    (folder / "index.json").write_text('{"my": "site"}')
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(NotWritable, match="no index of segclip's"):
        make_index(folder, IndexOptions(rebuild=rebuild), out=folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("rebuild", [False, True])
def test_fault_17_1_files_named_like_a_snapshot_stay(photos: Path, rebuild: bool) -> None:
    for name in ("snapshot-001.png", "snapshot-2024/b.png"):
        draw(place(photos) / name, "red")
    make_index(photos, IndexOptions(regions=True, rebuild=rebuild))
    draw(photos / "new.png", "green")
    make_index(photos)
    assert (place(photos) / "snapshot-001.png").exists()
    assert (place(photos) / "snapshot-2024" / "b.png").exists()
    assert len(snapshot.folders(place(photos))) == 1


@pytest.mark.timeout(60)  # a truncated page returns row 0 forever
@pytest.mark.parametrize("length", [4097, 5433, 8000, 8192, 11_000, 12_287])
def test_fault_17_3_reading_a_truncated_journal_terminates(photos: Path, length: int) -> None:
    path = place(photos) / rows.NAME
    path.write_bytes(path.read_bytes()[:length])
    names = [outcome.name for outcome in salvage(path)]
    assert len(names) == len(set(names)) <= 5


@pytest.mark.parametrize("harm", [_zero, _garble, _empty, Path.unlink])
def test_fault_17b_a_lost_journal_is_rebuilt(photos: Path, harm: Callable[[Path], None]) -> None:
    wanted = answers(photos)
    harm(place(photos) / rows.NAME)
    with pytest.raises(BadIndex):
        Index(photos).search("red", regions=True)
    assert embedded(make_index(photos)) == (5, 0)
    assert answers(photos) == wanted


WEIRD: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**30,
    1e308,
    "",
    "..",
    "\ud800",
    [],
    [[]],
    {},
    {"a": 1},
    [None] * 9,
)


def _records(photos: Path) -> dict[bytes, dict[str, Any]]:
    with closing(sqlite3.connect(place(photos) / rows.NAME)) as table:
        found = table.execute("SELECT name, rest FROM outcomes").fetchall()
    return {name: json.loads(zlib.decompress(rest)) for name, rest in found}


def test_fault_17b_an_invalid_row_is_embedded_again(photos: Path) -> None:
    wanted, sound = answers(photos), _records(photos)
    names = sorted(sound)
    for number, key in enumerate(
        key for key in sound[names[0]]["record"] for _ in (*WEIRD, "gone")
    ):
        value = (*WEIRD, "gone")[number % (len(WEIRD) + 1)]
        if (key, value) == ("taken", None) or (key == "taken" and value == -1):
            continue
        rest = json.loads(json.dumps(sound[names[0]]))
        rest["record"][key] = value
        if value == "gone":
            del rest["record"][key]
        with closing(sqlite3.connect(place(photos) / rows.NAME)) as table, table:
            packed = zlib.compress(json.dumps(rest).encode())
            table.execute("UPDATE outcomes SET rest = ? WHERE name = ?", (packed, names[0]))
        assert embedded(make_index(photos)) == (1, 4), (key, value)
        assert _records(photos) == sound
    assert answers(photos) == wanted


def test_fault_17b_embeddings_of_another_length_are_refused(photos: Path) -> None:
    for names in (["black.png"], None):
        with closing(sqlite3.connect(place(photos) / rows.NAME)) as table, table:
            for name, rest in table.execute("SELECT name, rest FROM outcomes").fetchall():
                facts = json.loads(zlib.decompress(rest))
                count = len(facts["record"]["quality"])
                numbers = np.ones((count, 3), np.float16)
                facts["record"] |= {
                    "dim": 3,
                    "embeddings": base64.b64encode(numbers.tobytes()).decode(),
                }
                if names is None or name.decode() in names:
                    packed = zlib.compress(json.dumps(facts).encode())
                    table.execute("UPDATE outcomes SET rest = ? WHERE name = ?", (packed, name))
        shutil.rmtree(snapshot.current(place(photos)), ignore_errors=True)
        with pytest.raises(BadIndex, match="--rebuild"):
            find_matches(make_index(photos).path, "red", regions=False)
    make_index(photos, IndexOptions(regions=True, rebuild=True))
    assert Index(photos).search("red", n=1)[0].name == "sub/red.png"


def test_fault_17b_invalid_run_lengths_are_refused(photos: Path) -> None:
    index = Index(photos)
    (match,) = index.search("red", n=1, regions=True)
    for counts in ("", "0", "o" * 40, "PPPPPPPP1", "\x00", "é"):
        rest = _records(photos)[match.name.encode()]
        rest["record"]["rle"][match.region or 0] = counts
        with closing(sqlite3.connect(place(photos) / rows.NAME)) as table, table:
            packed = zlib.compress(json.dumps(rest).encode())
            table.execute(
                "UPDATE outcomes SET rest = ? WHERE name = ?", (packed, match.name.encode())
            )
        with pytest.raises(BadIndex):
            Index(photos).masks(match)


@pytest.mark.parametrize("key", ["names", "taken", "sizes", "engine", "dim", "images", "regions"])
def test_fault_17b_invalid_entries_are_refused_and_repaired(photos: Path, key: str) -> None:
    others: tuple[Any, ...] = (
        "lancedb",
        ["x"] * 5,
        [float("nan")] * 5,
        [[-1, 2]] * 5,
        [[1, 2, 3]] * 5,
        [[10**12, 1]] * 5,
    )
    for value in (*WEIRD, *others):
        forge(photos, partial(_set, key, value))
        with pytest.raises(BadIndex):
            Index(photos).search("red", regions=True)
        assert embedded(make_index(photos)) == (0, 5)
        assert Index(photos).search("red", n=1, regions=True)[0].name == "sub/red.png"


@pytest.mark.parametrize(
    "key", ["source", "encoder", "weights", "proposer", "regions", "policy", "engine", "format"]
)
def test_fault_17b_an_invalid_identity_is_refused_and_repaired(photos: Path, key: str) -> None:
    file = place(photos) / "index.json"
    sound = json.loads(file.read_text())
    values: tuple[Any, ...] = (7, 1.5, [], {}, "\0", None, "x" * 9)
    for value in values:
        if (
            isinstance(value, str)
            and "\0" not in value
            and isinstance(sound[key] or "", str)
            and key != "engine"
        ) or ((key, value) == ("policy", None)):
            continue
        file.write_text(json.dumps({**sound, key: value}))
        with pytest.raises(BadIndex, match="segclip"):
            Index(photos)
        if (key, value) != ("format", 7):
            make_index(photos)
            assert json.loads(file.read_text()) == sound
    for text in (
        "[]",
        "7",
        '{"format": 1}',
        "[" * 100_000,
        '{"a":' * 50_000,
        "9" * 5000,
        '"\\ud800"',
    ):
        file.write_text(text)
        with pytest.raises(BadIndex, match="segclip index again"):
            Index(photos)


@pytest.mark.parametrize(
    "name",
    ["../precious.png", "/etc/passwd", "a/../../b.png", "a//b.png", "", ".", "a\0b.png", "\ud800"],
)
def test_fault_17_2_names_in_an_index_lead_nowhere(photos: Path, name: str) -> None:
    precious = photos.parent / "precious.png"
    draw(precious, "red")
    before = precious.read_bytes()
    forge(photos, lambda facts: facts["names"].__setitem__(0, name))
    with pytest.raises(BadIndex, match="no name of a file"):
        Index(photos)
    with closing(sqlite3.connect(place(photos) / rows.NAME)) as table, table:
        table.execute(
            "UPDATE outcomes SET name = ? WHERE name = ?",
            (name.encode("utf-8", "replace"), b"black.png"),
        )
    # a row of the same size may count as that of a moved image
    assert embedded(make_index(photos)) in ((1, 4), (0, 5))
    assert set(Index(photos).images.names) == {
        "black.png",
        "green.png",
        "yellow.png",
        "sub/blue.png",
        "sub/red.png",
    }
    assert precious.read_bytes() == before


@pytest.mark.parametrize(
    "name", ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "index.sqlite-journal"]
)
def test_fault_17_2_links_in_an_index_are_not_written_through(photos: Path, name: str) -> None:
    wanted, before = answers(photos), (photos / "green.png").read_bytes()
    link = place(photos) / "journal" / name
    link.unlink(missing_ok=True)
    link.symlink_to(photos / "green.png")
    with pytest.raises(BadIndex, match="a link"):
        Index(photos).search("red", regions=True)
    make_index(photos)
    assert answers(photos) == wanted
    assert (photos / "green.png").read_bytes() == before


def test_fault_17_2_an_index_that_is_a_link_is_refused(photos: Path, tmp_path: Path) -> None:
    place(photos).rename(tmp_path / "elsewhere")
    place(photos).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotWritable, match="--out"):
        make_index(photos)
    assert make_index(photos, out=tmp_path / "elsewhere").images == 5


def test_fault_17b_a_snapshot_outside_the_index_is_refused(photos: Path) -> None:
    folder = snapshot.current(place(photos))
    shutil.copytree(folder, photos.parent / "elsewhere")
    crc = zlib.crc32((folder / "pictures.json").read_bytes())
    for name in ("../../elsewhere", str(photos.parent / "elsewhere"), "snapshot-", "", None, ["x"]):
        (place(photos) / "current.json").write_text(json.dumps({"snapshot": name, "checksum": crc}))
        with pytest.raises(BadIndex):
            Index(photos)


def test_fault_17b_rows_that_point_outside_are_refused(photos: Path) -> None:
    folder = snapshot.current(place(photos))
    sound = (folder / "regions.rows").read_bytes()
    for column, value in (
        (0, 1),
        (0, 5),
        (0, -1),
        (0, 2**31 - 1),
        (1, -2),
        (1, 1),
        (1, 34_779_256),
    ):
        table = np.frombuffer(sound, np.int32).reshape(-1, 3).copy()
        table[0, column] = value
        (folder / "regions.rows").write_bytes(table.tobytes())
        forge(photos, lambda facts: None)
        with pytest.raises(BadIndex, match="was not written by an index"):
            Index(photos)
    make_index(photos)
    assert Index(photos).search("red", n=1, regions=True)


def test_fault_17_3_a_snapshot_is_synced_before_it_is_in_use(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    rename = Path.rename

    def noted(sync: Callable[[Path], None]) -> Callable[[Path], None]:
        def call(path: Path) -> None:
            sync(path)
            synced.append(path)

        return call

    def renamed(path: Path, target: Path) -> Path:
        if path.name.startswith("snapshot-"):
            inside = {path, *path.rglob("*")}
            assert inside <= set(synced), "it is named before its bytes are on the disk"
            assert not (target.parent / "current.json").read_text().count(target.name)
        return rename(path, target)

    for name in ("sync_file", "sync_folder"):
        monkeypatch.setattr(atomic, name, noted(getattr(atomic, name)))
    monkeypatch.setattr(Path, "rename", renamed)
    draw(photos / "new.png", "red", 30)
    make_index(photos)
    assert place(photos) in synced  # after the rename, and after current.json


def test_fault_17_3_rows_are_synced_before_a_snapshot_uses_them(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = snapshot.publish

    def checked(where: Path, *others: Any) -> None:
        shutil.copytree(
            where / "journal",
            photos.parent / "copy",
            ignore=shutil.ignore_patterns("*-wal", "*-shm"),
        )
        with closing(rows.Rows(photos.parent / "copy" / rows.NAME.name, photos)) as journal:
            assert "new.png" in journal.names()
        publish(where, *others)

    monkeypatch.setattr(snapshot, "publish", checked)
    draw(photos / "new.png", "red", 30)
    make_index(photos)
    assert (photos.parent / "copy").exists()


def test_fault_17_9_a_model_that_only_the_index_names_is_not_loaded(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[str] = []

    def noted(load: Callable[..., Any]) -> Callable[..., Any]:
        def call(*names: Any, options: Any = None, device: str = "cpu", policy: Any = None) -> Any:
            touched.extend(names)
            return load(*names)

        return call

    for name in ("load_encoder", "encoder_fingerprint", "load", "fingerprint"):
        monkeypatch.setattr(loading, name, noted(getattr(loading, name)))
    file = place(photos) / "index.json"
    sound = json.loads(file.read_text())
    for evil in (
        "file:evil",
        "hf-hub:evil/repo",
        "ViT-B-32/file:/tmp/evil.pt",
        "local-dir:evil",
        "FILE:evil",
        "c:\\evil",
    ):
        file.write_text(json.dumps({**sound, "encoder": evil}))
        with pytest.raises(BadPrompt, match=r"if it is yours, name it: --encoder "):
            Index(photos).search("red")
        with pytest.raises(BadPrompt, match=r"if it is yours, name it: --encoder "):
            make_index(photos)
        file.write_text(json.dumps({**sound, "proposer": evil}))
        with pytest.raises(BadPrompt, match=r"if it is yours, name it: --proposer "):
            make_index(photos)
    assert not [name for name in touched if "evil" in name]
    own = f"hash of {(evil := 'file:mine')}"
    file.write_text(json.dumps({**sound, "encoder": evil, "weights": own}))
    # named by the user, it is loaded
    assert Index(photos, encoder=evil).search("red", n=1)[0].name == "sub/red.png"
    assert touched == [evil, evil]


def test_fault_17b_the_last_day_and_the_first_can_be_named(photos: Path) -> None:
    index = Index(photos)
    every = index.search("red", n=9)
    for where in (
        Filter(before=date.max),
        Filter(after=date.min),
        Filter(after=date.min, before=date.max, min_side=1, max_side=10**30),
    ):
        assert index.search("red", n=9, where=where) == every
    for where in (
        Filter(after=date.max),
        Filter(before=date.min),
        Filter(min_side=10**30),
        Filter(folder="\0'\ud800"),
    ):
        assert index.search("red", n=9, where=where) == ()
    assert index.search("red", n=10**30) == every


def test_a_file_of_an_impossible_time_is_found(photos: Path) -> None:
    for number, seconds in enumerate((-(10**9), 2**33)):
        draw(photos / f"{number}.png", "red", 20 + number)
        os.utime(photos / f"{number}.png", (seconds, seconds))
    make_index(photos)
    assert all(isinstance(match.taken, datetime) for match in Index(photos).search("red", n=9))


def test_fault_17_4_outputs_of_segclip_are_no_inputs(photos: Path, tmp_path: Path) -> None:
    before = answers(photos)
    draw(photos / "segclip-out" / "red.overlay.png", "red")
    draw(photos / "sub" / "masks" / "png" / "red.png", "black")
    (photos / "sub" / "masks" / ".segclip").mkdir()
    draw(place(photos) / "thumbnail.png", "blue")
    make_index(photos, DEEP, out=photos / "index of it")
    for _ in range(3):
        done = make_index(photos)
        assert (embedded(done), done.moved, done.removed) == ((0, 5), 0, 0)
        assert make_index(photos, out=photos / "index of it").images == 5
        assert answers(photos) == before


def _swap(path: Path, colour: str) -> None:
    """Replace an image by another of the same size in bytes and the same time."""
    former = path.stat()
    draw(path.with_name("other.bmp"), colour)
    os.replace(path.with_name("other.bmp"), path)
    os.utime(path, ns=(former.st_atime_ns, former.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (former.st_size, former.st_mtime_ns)


def test_fault_17_8_an_image_replaced_by_one_of_its_size_and_time(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(photos / "same.bmp", "red")
    make_index(photos)
    _swap(photos / "same.bmp", "green")
    assert embedded(make_index(photos)) == (1, 5)
    assert {match.name for match in Index(photos).search("green", n=2)} == {"green.png", "same.bmp"}
    # on a file system without change times and inodes, --verify reads everything
    for module in ("segclip.batch", "segclip.batch.work"):
        monkeypatch.setattr(f"{module}.stamp_of", lambda path: (*stamp_of(path)[:2], 0, 0))
    make_index(photos)
    _swap(photos / "same.bmp", "blue")
    assert embedded(make_index(photos)) == (0, 6)
    assert embedded(make_index(photos, running=Running(verify=True))) == (1, 5)
    assert {match.name for match in Index(photos).search("blue", n=2)} == {
        "sub/blue.png",
        "same.bmp",
    }


def _away_empty(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "sub").rename(photos.parent / "disk")
    (photos / "sub").mkdir()


def _away_stale(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def stale(path: Any = ".") -> Any:
        if Path(os.fspath(path)).name == "sub":
            raise OSError(116, "Stale file handle", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", stale)


def _away_forbidden(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def forbidden(path: Path, *options: Any, **named: Any) -> Any:
        if path.parent.name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *options, **named)

    for path in (photos / "sub").iterdir():
        # updates the change time
        path.chmod(0o600 if path.stat().st_mode & 0o777 != 0o600 else 0o644)
    monkeypatch.setattr(Path, "open", forbidden)


@pytest.mark.parametrize("away", [_away_empty, _away_stale, _away_forbidden])
def test_fault_17_21_unreachable_images_stay_in_the_index(
    photos: Path, monkeypatch: pytest.MonkeyPatch, away: Callable[..., None]
) -> None:
    before, files = answers(photos), snapshot.current(place(photos))
    with monkeypatch.context() as patch:
        away(photos, patch)
        for running in (Running(), Running(verify=True)):
            done = make_index(photos, running=running)
            assert (done.images, done.removed, done.moved, done.failed) == (5, 0, 0, ())
            assert any(line.startswith("sub") for line in done.unreachable)
            assert snapshot.current(place(photos)) == files
            assert answers(photos) == before
    if (photos.parent / "disk").exists():
        (photos / "sub").rmdir()
        (photos.parent / "disk").rename(photos / "sub")
    done = make_index(photos)
    assert (embedded(done), done.unreachable) == ((0, 5), ())
    assert answers(photos) == before


def test_fault_17_21_images_moved_out_of_a_folder_are_not_unreachable(photos: Path) -> None:
    for path in (photos / "sub").iterdir():
        path.rename(photos / f"moved {path.name}")
    done = make_index(photos)
    assert (embedded(done), done.images, done.moved, done.removed, done.unreachable) == (
        (0, 5),
        5,
        2,
        0,
        (),
    )


def test_fault_17_21_deleted_images_go_and_unreachable_ones_can_be_pruned(
    photos: Path, tmp_path: Path
) -> None:
    make_index(photos, DEEP, out=tmp_path / "beside")
    shutil.rmtree(photos / "sub")
    done = make_index(photos)
    assert (done.images, done.removed, done.unreachable) == (3, 2, ())
    (photos / "sub").mkdir()
    assert make_index(photos, out=tmp_path / "beside").images == 5
    done = make_index(photos, IndexOptions(prune=True), out=tmp_path / "beside")
    assert (done.images, done.removed, done.unreachable) == (3, 2, ())
    shutil.rmtree(place(photos))
    for path in photos.glob("*.png"):
        path.unlink()
    (photos / "sub").rmdir()
    done = make_index(photos, out=tmp_path / "beside")  # an empty folder: perhaps not mounted
    assert (done.images, len(done.unreachable)) == (3, 1)


def test_fault_17_1_a_sheet_replaces_only_sheets(photos: Path, tmp_path: Path) -> None:
    index = Index(photos)
    found = index.search("red", n=3)
    own = tmp_path / "holiday.jpg"
    draw(own, "green")
    link = tmp_path / "link.png"
    link.symlink_to(photos / "green.png")
    folder = tmp_path / "folder.png"
    folder.mkdir()
    before = {
        path: path.read_bytes() for path in (photos / "green.png", photos / "sub" / "red.png", own)
    }
    for target in (*before, link, folder):
        with pytest.raises(NotWritable, match="--sheet"):
            results.write_sheet(index, found, target)
    assert {path: path.read_bytes() for path in before} == before
    for name in ("sheet.png", "sheet.jpg"):
        first = results.write_sheet(index, found, tmp_path / "new" / name).read_bytes()
        results.write_sheet(index, found[:1], tmp_path / "new" / name)
        assert (tmp_path / "new" / name).read_bytes() != first
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["sheet.jpg", "sheet.png"]
    assert (photos / "green.png").is_file()
