"""Errors have one base, and other libraries' messages become one line."""

from __future__ import annotations

import inspect

import pytest

from segclip import errors
from segclip.errors import SegclipError, one_line


def test_every_error_is_a_segclip_error_and_in_the_modules_tree() -> None:
    kinds = dict(inspect.getmembers(errors, inspect.isclass))
    assert all(issubclass(kind, SegclipError) for kind in kinds.values())
    assert all(name in (errors.__doc__ or "") for name in kinds)
    assert not any(issubclass(kind, OSError | ValueError) for kind in kinds.values())


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n  first \nsecond\n"), "first"),
        (ValueError(), "ValueError"),
        (KeyError("weight"), "KeyError 'weight'"),
        (AssertionError("3 != 4"), "AssertionError 3 != 4"),
        (OSError("a\x1b[2Jb\u202ec"), "a?[2Jb?c"),
        ("plain text", "plain text"),
    ],
)
def test_a_message_is_its_first_line_in_printable_characters(
    error: BaseException | str, line: str
) -> None:
    assert one_line(error) == line


def test_a_long_message_is_cut() -> None:
    assert one_line("x" * 1000) == "x" * 240
