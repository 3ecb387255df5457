"""Unusable numbers on the command line are rejected before any computation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from segclip.checks import MOST, checked
from segclip.cli import evaluate
from segclip.cli import main as cli
from segclip.errors import BadPrompt

HUGE = ("nan", "inf", "-inf", "1e999", "9" * 30, "-" + "9" * 30, "9" * 5000)


def numeric(verb: Callable[..., Any]) -> Iterator[str]:
    """Yield the flags of a command's numeric options."""
    hints = getattr(verb, "__annotations__", {})
    if any(isinstance(hint, str) for hint in hints.values()):
        hints = get_type_hints(verb, include_extras=True)
    for name in signature(verb).parameters:
        hint = hints[name]
        kinds = get_args(hint)[:1] if get_origin(hint) is Annotated else (hint,)
        if {int, float} & {*kinds, *get_args(kinds[0])}:
            declared = [
                flag
                for extra in hint.__metadata__
                for flag in (extra.default, *(extra.param_decls or ()))
            ]
            flags = [flag for flag in declared if isinstance(flag, str) and flag.startswith("--")]
            yield flags[0] if flags else f"--{name.replace('_', '-')}"


OPTIONS = [
    (*prefix, command.name or command.callback.__name__, flag)
    for prefix, app in (((), cli.app), (("evaluate",), evaluate.app))
    for command in app.registered_commands
    if command.callback
    for flag in numeric(command.callback)
]


def test_every_numeric_option_is_covered() -> None:
    flags = {flag for *_, flag in OPTIONS}
    assert {
        "--threshold",
        "--top-k",
        "--nms",
        "--max-pixels",
        "--workers",
        "--limit",
        "--port",
    } <= flags


@pytest.mark.parametrize("option", OPTIONS, ids=" ".join)
@pytest.mark.parametrize("value", HUGE, ids=lambda value: value[:8])
def test_an_unusable_number_is_rejected(option: tuple[str, ...], value: str) -> None:
    """Fault 17.17: OverflowError for huge integers; nan and infinity accepted as thresholds."""
    *verb, flag = option
    needed = {
        "segment": ["x"],
        "export": ["x", "y"],
        "classify": ["x"],
        "index": ["x"],
        "search": ["x", "y"],
    }
    evaluated = ["x", "--encoder", "y"] if verb[-1] == "heat" else ["x"]
    rest = needed.get(verb[-1], evaluated if verb[0] == "evaluate" else [])
    outcome = CliRunner().invoke(cli.app, [*verb, *rest, flag, value])
    assert outcome.exit_code == 2, outcome.output
    assert isinstance(outcome.exception, SystemExit)
    assert flag in outcome.stderr or "-n" in outcome.stderr


def test_numbers_of_any_function_are_checked() -> None:
    @checked
    def verb(
        rate: float,
        sizes: Annotated[list[int] | None, typer.Option("--size")] = None,
        name: str = "nan",
    ) -> str:
        return f"{rate} {sizes} {name}"

    assert verb(rate=1.0) == "1.0 None nan"
    for values, flag in (
        ({"rate": float("nan")}, "--rate"),
        ({"rate": 1.0, "sizes": [1, MOST + 1]}, "--size"),
    ):
        with pytest.raises(BadPrompt, match=f"{flag} takes"):
            verb(**values)
