"""Files of a run are recognised by content, and torn ones by their end."""

from __future__ import annotations

import errno
from hashlib import sha256
from pathlib import Path

import pytest

from segclip.batch import files
from segclip.errors import NotWritable


def test_a_staged_file_is_described_and_recognised_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"masks")
    staged = files.describe(path, "png/a")
    assert (staged.path, staged.size, staged.sha256) == ("png/a", 5, sha256(b"masks").hexdigest())
    assert files.is_same(path, staged.size, staged.sha256)
    path.write_bytes(b"other")
    assert not files.is_same(path, staged.size, staged.sha256)
    path.unlink()
    assert not files.is_same(path, staged.size, staged.sha256)
    with pytest.raises(NotWritable, match="cannot be read back"):
        files.describe(path, "png/a")


def test_a_link_is_described_by_where_it_leads(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    staged = files.describe(link, "yolo/a")
    assert staged.sha256.startswith(files.LINK)
    assert files.is_same(link, staged.size, staged.sha256)
    link.unlink()
    link.symlink_to("elsewhr")  # of the same length
    assert not files.is_same(link, staged.size, staged.sha256)
    files.sync_staged(link)  # with its folder: the missing target is no error


@pytest.mark.parametrize(
    ("content", "torn"),
    [
        (b"", True),
        (bytes(9), True),
        (b"one\ntw", True),
        (b"one\n", False),  # as if its last line was deleted by hand
        (b"one\ntwo\nmine", False),
        (b"one\ntw\0\0\0", True),
    ],
)
def test_a_file_that_a_power_cut_left_is_torn(tmp_path: Path, content: bytes, torn: bool) -> None:
    path, whole = tmp_path / "a", tmp_path / "whole"
    path.write_bytes(content)
    whole.write_bytes(b"one\ntwo\n")
    assert files.is_torn(path, whole) is torn


def test_only_errors_of_the_whole_disk_stop_all_writing() -> None:
    assert files.is_short_of_room(OSError(errno.ENOSPC, "full"))
    assert files.is_short_of_room(PermissionError(errno.EACCES, "forbidden"))
    assert not files.is_short_of_room(OSError(errno.ENAMETOOLONG, "too long"))
    assert not files.is_short_of_room(ValueError())
    assert not files.is_short_of_room(None)
