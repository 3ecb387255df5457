"""Standing test: after a power cut at any moment, a rerun yields the same bytes. Fault 17.3."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from segclip.batch import output
from segclip.batch.ledger import Ledger
from segclip.files import atomic
from tests.exports import photos, run, tree
from tests.power import Disk, PowerCut

pytestmark = [
    pytest.mark.usefixtures("fake_models"),
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the simulated disk needs /proc"),
]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush after every two outcomes, for more moments in between."""
    monkeypatch.setattr(output, "TOGETHER", 2)


def cut(folder: Path, out: Path, moment: int, seed: int) -> int:
    """Run until the power cut, leave what survives in ``out``, return the number of events."""
    after = out.with_name("after")
    out.mkdir()
    disk = Disk(out, after, moment, seed)
    with pytest.MonkeyPatch.context() as patch, suppress(PowerCut):
        disk.attach(patch)
        run(folder, out)
    disk.end()
    if moment:
        shutil.rmtree(out)
        after.rename(out)
    return disk.events


def journaled(out: Path) -> int:
    """Return how many images are done according to the journal."""
    place = out / ".segclip" / "journal.sqlite"
    if not place.exists():
        return 0
    with sqlite3.connect(place) as table:
        try:
            return int(table.execute("SELECT count(*) FROM outcomes").fetchone()[0])
        except sqlite3.OperationalError:  # no table yet
            return 0


@pytest.mark.slow
@pytest.mark.parametrize("cuts", [12, pytest.param(60, marks=pytest.mark.long)])
def test_fault_17_3_after_a_power_cut_the_same_bytes(tmp_path: Path, cuts: int) -> None:
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    events = cut(folder, tmp_path / "whole", 0, 0)
    wanted = tree(tmp_path / "whole")
    assert events > 100
    done = []
    for seed in range(cuts):
        moment = random.Random(seed).randint(1 + events * seed // cuts, events * (seed + 1) // cuts)
        cut(folder, out, moment, seed)
        known = journaled(out)
        summary = run(folder, out)
        assert summary.progress.before == known, (
            f"seed {seed}: the journal has outcomes whose files were not on the disk"
        )
        assert tree(out) == wanted, f"seed {seed}"
        done.append(known)
        shutil.rmtree(out)
    assert {0, 5} <= set(done)  # cuts at the beginning, and when all images were done
    assert len(set(done)) > 2  # and in between


def test_fault_17_3_the_simulated_disk_detects_missing_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without syncs the journal is ahead of the files: the test above would notice."""
    folder, out = photos(tmp_path / "photos"), tmp_path / "out"
    events = cut(folder, tmp_path / "whole", 0, 0)
    wanted = tree(tmp_path / "whole")
    monkeypatch.setattr(atomic, "sync_file", lambda path: None)
    cut(folder, out, events, 0)
    assert journaled(out) == 5
    summary = run(folder, out)
    assert summary.progress.before < 5  # the rerun compared sizes and hashes
    assert tree(out) == wanted


def test_fault_17_3_every_commit_of_the_journal_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def noted(*arguments: Any, **named: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **named))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", noted)
    ledger = Ledger(tmp_path / "journal.sqlite", tmp_path / "files.jsonl")
    (table,) = opened
    assert table.execute("PRAGMA synchronous").fetchone() == (2,)
    assert table.execute("PRAGMA journal_mode").fetchone() == ("truncate",)
    ledger.close()
