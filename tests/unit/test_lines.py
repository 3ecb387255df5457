"""Texts come from files people wrote, or through a pipe."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from segclip import lines
from segclip.errors import BadTable


def test_lines_are_read_from_a_file_or_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notepad.txt").write_bytes("\ufeffa café\r\n\r\n  a dog \r\n".encode())
    assert lines.read(tmp_path / "notepad.txt", "the labels file") == ["a café", "a dog"]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"a cat\na dog")))
    assert lines.read(Path("-"), "the labels file") == ["a cat", "a dog"]


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadTable, match=r"the labels file .*picture\.png is not UTF-8 text"):
        lines.read(tmp_path / "picture.png", "the labels file")
    with pytest.raises(BadTable, match="cannot be read: No such file"):
        lines.read(tmp_path / "none.txt", "the labels file")
