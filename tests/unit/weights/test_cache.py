"""Hash records: files are hashed once, and again when they change; records are validated."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from segclip.errors import WeightsMissing
from segclip.weights import cache


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the cache in a temporary folder."""
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_folder_is_segclip_home_else_the_users_cache(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.cache_folder() == home
    monkeypatch.delenv("SEGCLIP_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache.cache_folder() == Path("/elsewhere/segclip")


@pytest.mark.parametrize("inside", [True, False])
def test_a_file_is_hashed_again_only_when_it_changed(
    home: Path, tmp_path: Path, inside: bool
) -> None:
    file = (home if inside else tmp_path) / "model.bin"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"first")
    first = hashlib.sha256(b"first").hexdigest()
    cache.remember(file, first)
    stat = file.stat()

    assert cache.known_sha256(file) == first
    file.write_bytes(b"other")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert cache.known_sha256(file) == hashlib.sha256(b"other").hexdigest(), (
        "same size and mtime, another ctime"
    )


def test_a_replaced_file_is_hashed_again(home: Path, tmp_path: Path) -> None:
    """Fault 17.10: a file of the same size and mtime was taken for the recorded one."""
    file, other = tmp_path / "model.bin", tmp_path / "other.bin"
    file.write_bytes(b"first")
    cache.remember(file, hashlib.sha256(b"first").hexdigest())
    stat = file.stat()
    other.write_bytes(b"other")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(file)
    assert cache.known_sha256(file) == hashlib.sha256(b"other").hexdigest()


def test_a_record_of_an_earlier_version_causes_rehashing(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"bytes")
    stat = file.stat()
    cache.remember(file, "0" * 64)
    cache.record_path(file).write_text(
        f'{{"bytes": 5, "mtime_ns": {stat.st_mtime_ns}, "sha256": "{"0" * 64}"}}'
    )
    assert cache.recorded(file) is not None
    assert cache.known_sha256(file) == hashlib.sha256(b"bytes").hexdigest()


def test_a_record_can_be_deleted_repeatedly(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"bytes")
    cache.remember(file, "0" * 64)
    cache.forget(file)
    cache.forget(file)
    assert cache.recorded(file) is None


def test_records_of_users_files_are_stored_in_the_cache(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"bytes")
    cache.remember(folder / "model.bin", "0" * 64)
    assert [path.name for path in folder.iterdir()] == ["model.bin"]
    assert cache.recorded(folder / "model.bin") is not None


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"sha256": "0"}', '{"bytes":5,"mtime_ns":0,"sha256":[]}', "[" * 99_999]
)
def test_a_damaged_record_is_ignored(home: Path, text: str) -> None:
    home.mkdir()
    file = home / "model.bin"
    file.write_bytes(b"bytes")
    cache.record_path(file).write_text(text)
    assert cache.recorded(file) is None
    assert cache.known_sha256(file) == hashlib.sha256(b"bytes").hexdigest()


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "occupied").write_text("a file where the folder should be")
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path / "occupied"))
    file = tmp_path / "model.bin"
    file.write_bytes(b"bytes")
    cache.remember(file, "0" * 64)
    assert cache.recorded(file) is None


def test_an_unreadable_file_is_weights_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="cannot read"):
        cache.hash_file(tmp_path)
