"""A snapshot is synced before it is used, and its damage is detected and repaired."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from segclip import Index, IndexOptions, find_matches, make_index
from segclip.errors import BadIndex
from segclip.files import atomic
from segclip.search import rows, snapshot
from tests.indexes import (
    answers,
    embedded,
    empty,
    flip_one,
    garble,
    halve,
    place,
    replace_by_pipe,
    square,
    zero,
)


@pytest.mark.parametrize(
    "harm", [zero, halve, garble, empty, Path.unlink, replace_by_pipe, flip_one]
)
@pytest.mark.parametrize(
    "name", ["images.f32", "images.rows", "regions.f32", "regions.rows", "pictures.json"]
)
def test_fault_17_3_lost_vectors_are_detected_and_rewritten(
    indexed: Path, name: str, harm: Callable[[Path], None]
) -> None:
    wanted = answers(indexed)
    harm(snapshot.current(place(indexed)) / name)
    with pytest.raises(BadIndex, match="run segclip index again"):
        Index(indexed)
    assert embedded(make_index(indexed)) == (0, 5)  # every embedding is still there
    assert answers(indexed) == wanted


@pytest.mark.parametrize("harm", [zero, halve, garble, Path.unlink])
def test_fault_17_3_lost_files_of_lancedb_are_detected(
    indexed: Path, harm: Callable[[Path], None]
) -> None:
    pytest.importorskip("lancedb")
    lancedb = IndexOptions(regions=True, engine="lancedb")
    assert make_index(indexed, lancedb).engine == "lancedb"
    wanted = answers(indexed)
    for number in range(8):
        files = sorted(
            path for path in snapshot.current(place(indexed)).rglob("*") if path.is_file()
        )
        harm(files[number % len(files)])
        with pytest.raises(BadIndex, match="run segclip index again"):
            Index(indexed)
        assert embedded(make_index(indexed)) == (0, 5)
        assert answers(indexed) == wanted


@pytest.mark.parametrize("rebuild", [False, True])
def test_fault_17_1_files_named_like_a_snapshot_stay(indexed: Path, rebuild: bool) -> None:
    for name in ("snapshot-001.png", "snapshot-2024/b.png"):
        square(place(indexed) / name, "red")
    make_index(indexed, IndexOptions(regions=True, rebuild=rebuild))
    square(indexed / "new.png", "green")
    make_index(indexed)
    assert (place(indexed) / "snapshot-001.png").exists()
    assert (place(indexed) / "snapshot-2024" / "b.png").exists()
    assert len(snapshot.folders(place(indexed))) == 1


def test_fault_17b_embeddings_of_another_length_are_refused(indexed: Path) -> None:
    for names in (["black.png"], None):
        with closing(sqlite3.connect(place(indexed) / rows.NAME)) as table, table:
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
        shutil.rmtree(snapshot.current(place(indexed)), ignore_errors=True)
        with pytest.raises(BadIndex, match="--rebuild"):
            find_matches(make_index(indexed).path, "red", regions=False)
    make_index(indexed, IndexOptions(regions=True, rebuild=True))
    assert Index(indexed).search("red", n=1)[0].name == "sub/red.png"


def test_fault_17b_a_snapshot_outside_the_index_is_refused(indexed: Path) -> None:
    folder = snapshot.current(place(indexed))
    shutil.copytree(folder, indexed.parent / "elsewhere")
    crc = zlib.crc32((folder / "pictures.json").read_bytes())
    for name in (
        "../../elsewhere",
        str(indexed.parent / "elsewhere"),
        "snapshot-",
        "",
        None,
        ["x"],
    ):
        (place(indexed) / "current.json").write_text(
            json.dumps({"snapshot": name, "checksum": crc})
        )
        with pytest.raises(BadIndex):
            Index(indexed)


def test_fault_17_3_a_snapshot_is_synced_before_it_is_in_use(
    indexed: Path, monkeypatch: pytest.MonkeyPatch
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
    square(indexed / "new.png", "red", 30)
    make_index(indexed)
    assert place(indexed) in synced  # after the rename, and after current.json
