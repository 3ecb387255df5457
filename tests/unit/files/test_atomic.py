"""Files are whole or not there, and nothing is left lying about."""

from __future__ import annotations

from pathlib import Path

import pytest

from segclip.errors import NotWritable
from segclip.files import atomic


def test_writes_the_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = atomic.write(tmp_path / "new" / "a.bin", b"abc")
    assert path.read_bytes() == b"abc"
    assert [file.name for file in path.parent.iterdir()] == ["a.bin"]


def test_an_error_inside_the_block_keeps_the_old_file(tmp_path: Path) -> None:
    path = atomic.write(tmp_path / "a.bin", b"old")

    def write_half() -> None:
        with atomic.replacing(path) as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(NotWritable, match=r"file.a\.bin: cannot be written"):
        atomic.write(tmp_path / "file" / "a.bin", b"abc")


def test_leftovers_are_recognised_and_users_files_are_not(tmp_path: Path) -> None:
    with atomic.replacing(tmp_path / "a.bin"):
        (temporary,) = tmp_path.iterdir()
    assert atomic.is_leftover(temporary)
    assert not atomic.is_leftover(tmp_path / "a.bin")
    assert not atomic.is_leftover(tmp_path / ".a.part")
