"""Files of an index are checked before they are believed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from segclip import Index, make_index
from segclip.errors import BadIndex
from segclip.search import checked, rows
from tests.indexes import (
    embedded,
    empty,
    flip_one,
    forge,
    halve,
    place,
    replace_by_pipe,
    square,
    zero,
)


@pytest.mark.parametrize(
    "name",
    ["../precious.png", "/etc/passwd", "a/../../b.png", "a//b.png", "", ".", "a\0b.png", "\ud800"],
)
def test_fault_17_2_names_in_an_index_lead_nowhere(indexed: Path, name: str) -> None:
    precious = indexed.parent / "precious.png"
    square(precious, "red")
    before = precious.read_bytes()
    forge(indexed, lambda facts: facts["names"].__setitem__(0, name))
    with pytest.raises(BadIndex, match="no name of a file"):
        Index(indexed)
    with closing(sqlite3.connect(place(indexed) / rows.NAME)) as table, table:
        table.execute(
            "UPDATE outcomes SET name = ? WHERE name = ?",
            (name.encode("utf-8", "replace"), b"black.png"),
        )
    # a row of the same size may count as that of a moved image
    assert embedded(make_index(indexed)) in ((1, 4), (0, 5))
    assert set(Index(indexed).images.names) == {
        "black.png",
        "green.png",
        "yellow.png",
        "sub/blue.png",
        "sub/red.png",
    }
    assert precious.read_bytes() == before


@pytest.mark.parametrize(
    ("size", "valid"),
    [([3, 4], True), ([3], False), ([0, 4], False), ([True, 4], False), ([3, 2**31], False)],
)
def test_a_size_is_two_positive_numbers_of_pixels(size: object, valid: bool) -> None:
    assert checked.is_size(size) is valid


@pytest.mark.parametrize("content", [b"[]", b"7", b"\xff", b"[" * 100_000, b""])
def test_only_a_json_object_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        checked.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("harm", [zero, halve, empty, flip_one, Path.unlink, replace_by_pipe])
def test_a_file_that_differs_from_its_checksum_is_named(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    for name in ("a", "inner/b", "pictures.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"0123456789")
    sums = checked.checksums(tmp_path)
    assert sorted(sums) == ["a", "inner/b"]
    assert checked.damage(tmp_path, sums) == ""
    harm(tmp_path / "inner" / "b")
    assert checked.damage(tmp_path, sums).startswith("inner/b")


def test_of_a_large_file_only_the_size_is_checked(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    sums = checked.checksums(tmp_path)
    flip_one(tmp_path / "a")
    assert checked.damage(tmp_path, sums, most=9) == ""
    halve(tmp_path / "a")
    assert checked.damage(tmp_path, sums, most=9) == "a is not as it was written"
