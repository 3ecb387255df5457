"""Untrusted strings, made safe to display."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from app.plain import LONGEST_NAME, as_markdown, file_name, without_paths

each = pytest.mark.parametrize
HOSTILE = (
    "![x](https://evil.test/x.png)",
    "[x](javascript:alert(1))",
    "<img src=https://evil.test/x.png>",
    "https://evil.test www.evil.test a@evil.test",
    "`code` **bold** _slanted_ ~~gone~~ $x^2$ :red[red] :material/face: :smile:",
    "# heading",
    "1. list",
    "- list",
    "> quote",
    "a | b\n--- | ---\nc | d",
    "    indented\n\n***\n[x]: https://evil.test",
    "&lt;b&gt; \\",
    "a red box, 0.5",
)


@each("text", HOSTILE)
def test_markdown_is_shown_literally(text: str) -> None:
    """Fault 17.12."""
    written = as_markdown(text)
    (_, inline, _) = MarkdownIt("gfm-like", {"linkify": False}).parse(written)
    assert {part.type for part in inline.children or ()} <= {"text", "text_special"}
    rendered = "".join(part.content for part in inline.children or ())
    assert rendered.replace("\N{WORD JOINER}", "") == " ".join(text.split())
    assert "://" not in rendered  # Streamlit detects links once more in the rendered text
    assert ":material" not in written


@each(
    ("given", "name"),
    [
        ("photo.png", "photo.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\a.jpg", "a.jpg"),
        ("a\0b\n.png", "ab.png"),
        ("\u202egnp.exe", "gnp.exe"),
        ("..", "image"),
        ("", "image"),
        ("\ud800", "image"),
        (" . ", "image"),
        ("名前.png", "名前.png"),
    ],
)
def test_file_names_are_valid_on_every_system(given: str, name: str) -> None:
    assert file_name(given) == name


def test_long_names_are_cut_and_keep_their_ending(tmp_path: Path) -> None:
    for given in ("x" * 400 + ".png", "é" * 300 + ".jpeg", "🐘" * 100, "a." + "b" * 400):
        name = file_name(given)
        assert len(name.encode()) <= LONGEST_NAME
        (tmp_path / name).touch()
    assert file_name("é" * 300 + ".jpeg").endswith(".jpeg")


@each(
    "text",
    [
        "the index at /srv/secret/ab12 is damaged",
        "'/srv/secret/my photos/x.png': truncated",
        "file:/srv/secret/x.pt is no checkpoint",
        "file:~/secret/x.pt is no checkpoint",
        "C:\\Users\\secret\\x.png: no such file",
    ],
)
def test_messages_reveal_no_folder_of_the_server(text: str) -> None:
    assert "secret" not in without_paths(text, [Path("/srv/secret/my photos")])


def test_other_text_is_unchanged() -> None:
    for text in (
        "a/b is 3/4",
        "and/or",
        "the text 'a red box / a mug' is too long",
        "at http://x.y/z",
    ):
        assert without_paths(text) == text
