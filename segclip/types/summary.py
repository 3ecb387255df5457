"""Summarise tables of many masks for print(): a headline and the first rows, in about ten lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

ROWS = 7  # printed of a table
_TEXT = 40  # characters printed of a text


def quote(text: str) -> str:
    """Return a text in quotes, cut where it is long, with control characters escaped."""
    return repr(text if len(text) <= _TEXT else f"{text[: _TEXT - 3]}...")


def listing(texts: Sequence[str]) -> str:
    """Return the first texts in quotes, and how many more there are."""
    more = len(texts) - ROWS
    return ", ".join(map(quote, texts[:ROWS])) + (f" and {more} more" if more > 0 else "")


def table(headline: str, columns: Mapping[str, Sequence[str]], count: int) -> str:
    """Return a headline over aligned columns. count: of all rows, of which the first are given."""
    if not count:
        return headline
    cells = [[name, *values[:ROWS]] for name, values in columns.items()]
    widths = [max(map(len, column)) for column in cells]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in zip(*cells, strict=True)]
    more = [f"... and {count - ROWS} more"] if count > ROWS else []
    return "\n".join([headline, *(f"  {line}" for line in (*lines, *more))])


def numbers(values: Sequence[float], digits: int = 2) -> list[str]:
    """Return numbers as text; "-" for NaN."""
    return ["-" if math.isnan(value) else f"{value:.{digits}f}" for value in values]
