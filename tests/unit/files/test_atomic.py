"""Files are written completely or not at all, and no temporary files remain."""

from __future__ import annotations

from pathlib import Path

import pytest

from segclip.errors import NotWritable
from segclip.files import atomic


def test_only_the_written_file_remains(tmp_path: Path) -> None:
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


def test_an_unwritable_path_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(NotWritable, match=r"file.a\.bin: cannot be written"):
        atomic.write(tmp_path / "file" / "a.bin", b"abc")


def test_leftovers_are_distinguished_from_users_files(tmp_path: Path) -> None:
    with atomic.replacing(tmp_path / "a.bin"):
        (temporary,) = tmp_path.iterdir()
    assert atomic.is_leftover(temporary)
    assert not atomic.is_leftover(tmp_path / "a.bin")
    assert not atomic.is_leftover(tmp_path / ".a.part")
