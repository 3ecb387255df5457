"""Flags are split, parsed, checked, and gathered into dataclasses."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer

from segclip.cli.parsing import grouped, parse_numbers, split_commas
from segclip.errors import BadPrompt


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ([], []),
        (["a,b", "c"], ["a", "b", "c"]),
        ([" a ,,b", "b", "a,"], ["a", "b"]),
        ([" , "], []),
    ],
)
def test_commas_and_repetition_are_alike(values: list[str], parts: list[str]) -> None:
    assert split_commas(values) == parts


def test_numbers_are_parsed() -> None:
    assert parse_numbers("--point", "3, 4.5,0", (2, 3)) == [3.0, 4.5, 0.0]


@pytest.mark.parametrize("value", ["", "3", "1,2,3,4", "1,x", "nan,1", "1,inf", "1,1e30"])
def test_other_numbers_are_refused_with_an_example(value: str) -> None:
    with pytest.raises(BadPrompt, match=r"--point takes 2 or 3 numbers.*such as --point 120,80"):
        parse_numbers("--point", value, (2, 3))


@dataclass(frozen=True)
class Size:
    side: Annotated[int, typer.Option(min=1)]
    name: str = "square"


@dataclass(frozen=True)
class Colour:
    colour: str = "red"


def test_a_commands_dataclasses_become_its_flags() -> None:
    given: list[Any] = []

    def command(size: Size, colour: Colour) -> None:
        given.extend((size, colour))

    call = grouped(command)
    flags = inspect.signature(call).parameters
    assert list(flags) == ["side", "name", "colour"]
    assert flags["side"].default is inspect.Parameter.empty
    call(side=3, name="box", colour="blue")
    assert given == [Size(3, "box"), Colour("blue")]
