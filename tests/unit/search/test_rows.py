"""The journal of an index: damage is mended, invalid rows are embedded again."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from segclip import Index, make_index
from segclip.batch.journal import salvage
from segclip.errors import BadIndex
from segclip.search import rows
from tests.indexes import (
    DEEP,
    FIVE,
    WEIRD,
    answers,
    embedded,
    empty,
    garble,
    place,
    square,
    stored_records,
    zero,
)


@pytest.mark.parametrize("where", [0.0, 0.6, 0.75, 0.9])
@pytest.mark.parametrize("harm", ["zero", "garble", "truncate"])
def test_fault_17_3_a_damaged_journal_keeps_its_sound_rows(
    tmp_path: Path, harm: str, where: float
) -> None:
    folder = tmp_path / "photos"
    for number in range(60):
        square(folder / f"{number:02d}.png", FIVE[number % 5], 8 + number)
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


@pytest.mark.timeout(60)  # a truncated page returns row 0 forever
@pytest.mark.parametrize("length", [4097, 5433, 8000, 8192, 11_000, 12_287])
def test_fault_17_3_reading_a_truncated_journal_terminates(indexed: Path, length: int) -> None:
    path = place(indexed) / rows.NAME
    path.write_bytes(path.read_bytes()[:length])
    names = [outcome.name for outcome in salvage(path)]
    assert len(names) == len(set(names)) <= 5


@pytest.mark.parametrize("harm", [zero, garble, empty, Path.unlink])
def test_fault_17b_a_lost_journal_is_rebuilt(indexed: Path, harm: Callable[[Path], None]) -> None:
    wanted = answers(indexed)
    harm(place(indexed) / rows.NAME)
    with pytest.raises(BadIndex):
        Index(indexed).search("red", regions=True)
    assert embedded(make_index(indexed)) == (5, 0)
    assert answers(indexed) == wanted


def test_fault_17b_an_invalid_row_is_embedded_again(indexed: Path) -> None:
    wanted, sound = answers(indexed), stored_records(indexed)
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
        with closing(sqlite3.connect(place(indexed) / rows.NAME)) as table, table:
            packed = zlib.compress(json.dumps(rest).encode())
            table.execute("UPDATE outcomes SET rest = ? WHERE name = ?", (packed, names[0]))
        assert embedded(make_index(indexed)) == (1, 4), (key, value)
        assert stored_records(indexed) == sound
    assert answers(indexed) == wanted


@pytest.mark.parametrize(
    "name", ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "index.sqlite-journal"]
)
def test_fault_17_2_links_in_an_index_are_not_written_through(indexed: Path, name: str) -> None:
    wanted, before = answers(indexed), (indexed / "green.png").read_bytes()
    link = place(indexed) / "journal" / name
    link.unlink(missing_ok=True)
    link.symlink_to(indexed / "green.png")
    with pytest.raises(BadIndex, match="a link"):
        Index(indexed).search("red", regions=True)
    make_index(indexed)
    assert answers(indexed) == wanted
    assert (indexed / "green.png").read_bytes() == before


def test_fault_17_3_rows_are_synced_before_a_snapshot_uses_them(
    indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, copied = Path.rename, indexed.parent / "copy"

    def noted(path: Path, target: Path) -> Path:
        if path.name.startswith("snapshot-"):
            # without the log of what is not yet in the file itself
            unsynced = shutil.ignore_patterns("*-wal", "*-shm")
            shutil.copytree(place(indexed) / "journal", copied, ignore=unsynced)
            with closing(rows.Rows(copied / rows.NAME.name, indexed)) as journal:
                assert "new.png" in journal.names()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", noted)
    square(indexed / "new.png", "red", 30)
    make_index(indexed)
    assert copied.exists()
