"""Texts come from files people wrote, or through a pipe."""

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


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadTable, match=r"the labels file .*picture\.png is not UTF-8 text"):
        lines.read(tmp_path / "picture.png", "the labels file")
    with pytest.raises(BadTable, match="cannot be read: No such file"):
        lines.read(tmp_path / "none.txt", "the labels file")


ODD = "\x1b[31mred\x1b[0m \x07\x08\r\x7f\x9b2J \u202egnp.exe\tä🦁\n"
SEEN = "\\x1b[31mred\\x1b[0m \\x07\\x08\\x0d\\x7f\\x9b2J \\u202egnp.exe\tä🦁\n"


def test_what_steers_a_terminal_is_made_visible() -> None:
    """Fault 17.17d: escapes in file names and texts reached the terminal."""
    assert lines.visible(ODD) == SEEN
    assert lines.visible(SEEN) == SEEN


def test_all_that_is_printed_is_made_visible(capsys: pytest.CaptureFixture[str]) -> None:
    with lines.shown_safely():
        typer.echo(ODD, nl=False, color=True)
        typer.echo(ODD, nl=False, err=True, color=True)
        handler = logging.StreamHandler()
        handler.emit(logging.LogRecord("", 30, "", 0, ODD, (), None))
        sys.stderr.writelines(["\r50 %", "\x1b"])
    typer.echo("plain \x1b", color=True)
    out, err = capsys.readouterr()
    assert out == SEEN + "plain \x1b\n"
    assert err == SEEN + SEEN + "\n\r50 %\\x1b"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_fault_17_13_streams_may_be_closed(closed: str, tmp_path: Path) -> None:
    """A command without a standard output or the like ends as ever, and nothing of what it prints
    goes astray.
    """
    script = (
        "import os, sys; from segclip import lines; lines.open_missing_streams()\n"
        "file = open(sys.argv[1], 'wb')\n"
        "with lines.shown_safely():\n"
        "    print('out', flush=True); print('err', file=sys.stderr, flush=True)\n"
        "    os.write(1, b''); sys.stdin.buffer.read(0); assert file.fileno() > 2\n"
        "raise SystemExit(7)"
    )
    command = f'"$0" -c "$1" "$2" {closed}'
    file = tmp_path / "file"
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, script, file], capture_output=True, text=True
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout == ("" if ">&-" in closed.replace("2>&-", "") else "out\n")
    assert done.stderr == ("" if "2>&-" in closed else "err\n")
    assert file.read_bytes() == b""
