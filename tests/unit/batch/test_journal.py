"""The journal of outcomes: locked, full, damaged, foreign, or of a former version."""

from __future__ import annotations

import json
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import pytest

from segclip.batch import journal
from segclip.batch.journal import Damaged, Journal, Outcome
from segclip.errors import BadIndex, Busy, NotWritable
from tests.exports import run, tree


@pytest.mark.parametrize("pages", [1, 4, 6, 7])
def test_fault_17_5_the_journal_has_no_room(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    connect = sqlite3.connect

    def small(*arguments: Any, **named: Any) -> sqlite3.Connection:
        table = connect(*arguments, **named)
        table.execute(f"PRAGMA max_page_count={pages}")
        return table

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", small)
        with pytest.raises(NotWritable, match=r"journal.*full"):
            run(folder, tmp_path / "out")
    assert run(folder, tmp_path / "out").states["failed"] == 0
    run(folder, tmp_path / "clean")
    assert tree(tmp_path / "out") == tree(tmp_path / "clean")


def test_fault_17_17b_the_former_journal_of_an_index_still_opens(tmp_path: Path) -> None:
    table = sqlite3.connect(tmp_path / "index.sqlite")
    table.execute("PRAGMA journal_mode=WAL")
    table.execute(
        "CREATE TABLE outcomes (name BLOB PRIMARY KEY, content TEXT, size INTEGER, mtime "
        "INTEGER, asked TEXT, "
        "state TEXT, rest BLOB)"
    )
    rest = zlib.compress(
        json.dumps({"files": [], "record": {"dim": 3}, "reason": "", "trace": ""}).encode()
    )
    table.execute(
        "INSERT INTO outcomes VALUES (?, 'abc', 5, 6, 'asked', 'matched', ?)", (b"a.png", rest)
    )
    table.commit()
    table.close()
    known = Journal(tmp_path / "index.sqlite")
    assert known.get("a.png") == Outcome(
        "a.png", "abc", (5, 6, 0, 0), "asked", "matched", record={"dim": 3}
    )
    known.put(Outcome("b.png", "", (1, 2, 3, 4), "asked", "failed", reason="why", passing=True))
    known.close()
    again = Journal(tmp_path / "index.sqlite")
    assert again.get("b.png") == Outcome(
        "b.png", "", (1, 2, 3, 4), "asked", "failed", reason="why", passing=True
    )
    again.close()


def test_fault_17_5_a_file_that_is_no_journal_is_reported(tmp_path: Path) -> None:
    place = tmp_path / "j.sqlite"
    with sqlite3.connect(place) as table:
        table.execute("CREATE TABLE bookmarks (url TEXT)")
    table.close()
    with pytest.raises(Damaged, match="bookmarks"):
        Journal(place)
    with sqlite3.connect(place) as table:
        table.execute("PRAGMA user_version = 99")
    table.close()
    with pytest.raises(BadIndex, match="newer segclip"):
        Journal(place)


def test_fault_17_5_a_locked_journal_is_reported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, tmp_path / "out")
    monkeypatch.setattr(journal, "PATIENCE", 0.1)
    place = tmp_path / "out" / ".segclip" / "journal.sqlite"
    holder = sqlite3.connect(place, isolation_level=None)
    for kind in ("EXCLUSIVE", "IMMEDIATE"):
        holder.execute(f"BEGIN {kind}")
        with pytest.raises(Busy, match=r"journal\.sqlite: another process holds it"):
            run(folder, tmp_path / "out", "a green square")
        holder.execute("ROLLBACK")
    holder.close()
