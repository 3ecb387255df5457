"""Texts are read from users' files or a pipe, and terminal output is escaped."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from segclip.errors import BadTable
from segclip.files import lines


def test_lines_are_read_from_a_file_or_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notepad.txt").write_bytes("\ufeffa café\r\n\r\n  a dog \r\n".encode())
    assert lines.read(tmp_path / "notepad.txt", "the labels file") == ["a café", "a dog"]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"a cat\na dog")))
    assert lines.read(Path("-"), "the labels file") == ["a cat", "a dog"]


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadTable, match=r"the labels file .*image\.png is not UTF-8 text"):
        lines.read(tmp_path / "image.png", "the labels file")
    with pytest.raises(BadTable, match="cannot be read: No such file"):
        lines.read(tmp_path / "none.txt", "the labels file")


RAW = "\x1b[31mred\x1b[0m \x07\x08\r\x7f\x9b2J \u202egnp.exe\tä🦁\n"
ESCAPED = "\\x1b[31mred\\x1b[0m \\x07\\x08\\x0d\\x7f\\x9b2J \\u202egnp.exe\tä🦁\n"


def test_terminal_control_characters_are_escaped() -> None:
    """Fault 17.17d: escape sequences in file names and texts reached the terminal."""
    assert lines.visible(RAW) == ESCAPED
    assert lines.visible(ESCAPED) == ESCAPED


def test_all_printed_text_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    with lines.escaping_output():
        typer.echo(RAW, nl=False, color=True)
        typer.echo(RAW, nl=False, err=True, color=True)
        handler = logging.StreamHandler()
        handler.emit(logging.LogRecord("", 30, "", 0, RAW, (), None))
        sys.stderr.writelines(["\r50 %", "\x1b"])
    typer.echo("plain \x1b", color=True)
    out, err = capsys.readouterr()
    assert out == ESCAPED + "plain \x1b\n"
    assert err == ESCAPED + ESCAPED + "\n\r50 %\\x1b"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_fault_17_13_streams_may_be_closed(closed: str, tmp_path: Path) -> None:
    """A command without standard streams ends normally, and its output lands in no other file."""
    script = (
        "import os, sys; from segclip.files import lines; lines.open_missing_streams()\n"
        "file = open(sys.argv[1], 'wb')\n"
        "with lines.escaping_output():\n"
        "    print('out', flush=True); print('err', file=sys.stderr, flush=True)\n"
        "    os.write(1, b''); sys.stdin.buffer.read(0); assert file.fileno() > 2\n"
        "raise SystemExit(7)"
    )
    command = f'"$0" -c "$1" "$2" {closed}'
    file = tmp_path / "file"
    process = subprocess.run(
        ["sh", "-c", command, sys.executable, script, file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 7, process.stderr
    assert process.stdout == ("" if ">&-" in closed.replace("2>&-", "") else "out\n")
    assert process.stderr == ("" if "2>&-" in closed else "err\n")
    assert file.read_bytes() == b""
