"""Spread dataclasses into a command's flags, and read what flags hold."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, fields
from functools import wraps
from typing import Any, get_type_hints

from .. import checks
from ..errors import BadPrompt


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Flatten a command's dataclass parameters into the options that typer reads."""
    groups = {name: kind for name, kind in get_type_hints(command).items() if name != "return"}
    parameters = [parameter for kind in groups.values() for parameter in _parameters(kind)]

    @wraps(command)
    def call(**values: Any) -> None:
        for parameter in parameters:
            checks.check(values[parameter.name], parameter.name, parameter.annotation)
        command(
            *(
                kind(**{field.name: values[field.name] for field in fields(kind)})
                for kind in groups.values()
            )
        )

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _parameters(kind: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=hints[field.name],
        )


def split_commas(values: Iterable[str]) -> list[str]:
    """Split comma-separated and repeated values: each once, in the order given."""
    return list(
        dict.fromkeys(part.strip() for value in values for part in value.split(",") if part.strip())
    )


def parse_numbers(flag: str, value: str, counts: tuple[int, ...]) -> list[float]:
    """Parse comma-separated numbers. Raises BadPrompt."""
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    # NaN fails the comparison too
    if len(numbers) not in counts or not all(abs(number) <= checks.MOST for number in numbers):
        expected = " or ".join(map(str, counts))
        example = ",".join(("120", "80", "400", "380")[: counts[0]])
        raise BadPrompt(
            f"{flag} takes {expected} numbers, finite, comma-separated, in pixels, such as "
            f"{flag} {example}; got {value[:80]!r}"
        )
    return numbers
