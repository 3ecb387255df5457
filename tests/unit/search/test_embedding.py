"""Images are embedded in batches of one size, and a region's mask is checked."""

from __future__ import annotations

import json
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from segclip import Index, loading, make_index
from segclip.errors import BadIndex
from segclip.search import rows
from tests.fakes import COLOURS, FakeEncoder
from tests.indexes import (
    draw,
    place,
    stored_records,
)


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
    assert set(encoder.crops_encoded) == {8}


def test_fault_17b_invalid_run_lengths_are_refused(indexed: Path) -> None:
    index = Index(indexed)
    (match,) = index.search("red", n=1, regions=True)
    for counts in ("", "0", "o" * 40, "PPPPPPPP1", "\x00", "é"):
        rest = stored_records(indexed)[match.name.encode()]
        rest["record"]["rle"][match.region or 0] = counts
        with closing(sqlite3.connect(place(indexed) / rows.NAME)) as table, table:
            packed = zlib.compress(json.dumps(rest).encode())
            table.execute(
                "UPDATE outcomes SET rest = ? WHERE name = ?", (packed, match.name.encode())
            )
        with pytest.raises(BadIndex):
            Index(indexed).masks(match)
