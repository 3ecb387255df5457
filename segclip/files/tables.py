"""Read users' tables strictly: the allowed columns are declared, and anything else is an error.

Formats: CSV, TSV, tables separated by "|" or ";" with a header row, and JSON lines. An error names
the row (counted from 1, without the header), the line it begins on, and the column.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from ..errors import BadTable
from . import lines

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl")
_DELIMITERS = ("\t", "|", ";", ",")
# pandas' heading for its own index, saved once or twice
_INDEX = re.compile(r"(unnamed: \d+(\.\d+)?)?")
_INDEX_COLUMN = "#"  # marks such a column
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_FILE = re.compile(r"[^\x00-\x1f]*\.\w{2,5}")


@dataclass(frozen=True)
class Columns:
    """The columns that a table may have.

    known: accepted headings by column. needed: required columns. ignored: headings that are allowed
    and skipped. bare: the columns of a table without a header, the first a file name; () if a
    header is required. rest: the column that, if last, takes the remainder of its row with the
    delimiters, since captions contain commas and are rarely quoted.
    """

    known: Mapping[str, tuple[str, ...]]
    needed: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    rest: str = ""

    def meaning(self, heading: str) -> str | None:
        """Return the column of a heading, "" for an ignored one, None for an unknown one."""
        plain = heading.strip().lower()
        if plain in self.ignored:
            return ""
        return next((column for column, names in self.known.items() if plain in names), None)

    def place(self, headings: Sequence[str]) -> list[str]:
        """Return the column of each heading, "" or _INDEX_COLUMN for none.

        Raises ValueError with an explanation.
        """
        placed: list[str] = []
        for heading in headings:
            is_index = _INDEX.fullmatch(heading.strip().lower())
            column = _INDEX_COLUMN if is_index else self.meaning(heading)
            if column is None:
                raise ValueError(
                    f"unknown column {_brief(heading.strip())}{self._nearest(heading)}; "
                    f"{self._allowed()}"
                )
            if column in placed and column in self.known:
                first = headings[placed.index(column)].strip()
                raise ValueError(
                    f"columns {first!r} and {heading.strip()!r} both mean {column!r}; keep one of "
                    "them"
                )
            placed.append(column)
        if missing := [column for column in self.needed if column not in placed]:
            names = " or ".join(map(repr, self.known[missing[0]]))
            raise ValueError(f"it has no column {names}; {self._allowed()}")
        return placed

    def _nearest(self, heading: str) -> str:
        names = [name for names in self.known.values() for name in names]
        found = difflib.get_close_matches(heading.strip().lower(), names, n=1, cutoff=0.7)
        return f", did you mean {found[0]!r}" if found else ""

    def _allowed(self) -> str:
        return "known columns: " + ", ".join(
            name for names in (*self.known.values(), self.ignored) for name in names
        )


@dataclass(frozen=True)
class Row:
    """A row of a table. values: by column, without missing and empty ones.

    line: in the file, from 1; 0 where rows are not lines, as in a JSON file.
    """

    file: Path
    number: int
    line: int
    values: Mapping[str, Any]

    def refuse(self, problem: str, column: str = "") -> NoReturn:
        """Raise BadTable for this row, and the column if given."""
        line = f" (line {self.line})" if self.line else ""
        place = f", column {column!r}" if column else ""
        raise BadTable(f"{self.file}, row {self.number}{line}{place}: {problem}")

    def text(self, column: str) -> str:
        """Return a text, "" if missing. Raises BadTable."""
        value = self.values.get(column, "")
        if not isinstance(value, str):
            self.refuse(f"expected a text, got {_brief(value)}", column)
        if problem := lines.fault(value):
            self.refuse(problem, column)
        return value.strip()

    def texts(self, column: str) -> tuple[str, ...]:
        """Return the texts of a list, a JSON list, or a ";"-separated text. Raises BadTable."""
        found = []
        for value in self._list(column):
            if not isinstance(value, str):
                self.refuse(f"expected a list of texts, got {_brief(value)} in it", column)
            if problem := lines.fault(value):
                self.refuse(problem, column)
            found.append(value.strip())
        return tuple(text for text in found if text)

    def places(
        self, column: str, counts: tuple[int, ...], example: str
    ) -> tuple[tuple[float, ...], ...]:
        """Return rows of finite numbers, from [[1, 2], ...] or "1,2; 3,4". Raises BadTable.

        counts: the allowed numbers per row. example: of a row, for the message.
        """
        found = []
        for value in self._list(column):
            numbers = _numbers(value.split(",") if isinstance(value, str) else value)
            if len(numbers) not in counts:
                self.refuse(f"expected {example}, finite numbers, got {_brief(value)}", column)
            found.append(numbers)
        return tuple(found)

    def _list(self, column: str) -> list[Any]:
        value = self.values.get(column, [])
        if isinstance(value, str):
            if not value.lstrip().startswith("["):
                return [part.strip() for part in value.split(";") if part.strip()]
            try:
                value = parse_json(value)
            except ValueError as error:
                self.refuse(str(error), column)
        if not isinstance(value, list):
            self.refuse(f"expected a list, got {_brief(value)}", column)
        return value


def read(file: Path, columns: Columns) -> Iterator[Row]:
    """Yield the rows of a table in order, without blank ones. Raises BadTable."""
    yield from parse(file, lines.read_text(file, "the table"), columns)


def parse(file: Path, text: str, columns: Columns) -> Iterator[Row]:
    """Yield the rows of a table's text, in the format of the file's suffix. Raises BadTable."""
    yield from (_json_rows if file.suffix.lower() == ".jsonl" else _cell_rows)(file, text, columns)


def read_json(file: Path, what: str) -> Any:
    """Return the content of a JSON file, called ``what`` in messages. Raises BadTable."""
    try:
        return parse_json(lines.read_text(file, what))
    except ValueError as error:
        raise BadTable(f"{what} {file}: {error}") from None


def parse_json(text: str) -> Any:
    """Parse JSON text, requiring finite numbers and unique keys.

    Raises ValueError with a one-line explanation.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"not JSON: {error.msg} at line {error.lineno}, character {error.colno}"
        ) from None
    except RecursionError:
        raise ValueError("not usable JSON: nested too deep") from None
    except ValueError as error:  # of the hooks, or for an integer of thousands of digits
        raise ValueError(f"not usable JSON: {error}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return found


def _json_rows(file: Path, text: str, columns: Columns) -> Iterator[Row]:
    number = 0
    for line, content in enumerate(io.StringIO(text, newline=""), 1):  # splits at \n, \r, \r\n only
        if not content.strip():
            continue
        number += 1
        row = Row(file, number, line, {})
        try:
            found = parse_json(content)
            if not isinstance(found, dict):
                raise ValueError(f"expected an object of column and value, got {_brief(found)}")
            placed = columns.place(list(found))
        except ValueError as error:
            row.refuse(str(error))
        named = zip(placed, found.values(), strict=True)
        values = {
            name: value
            for name, value in named
            if name in columns.known and value not in (None, "")
        }
        yield replace(row, values=values)


def _cell_rows(file: Path, text: str, columns: Columns) -> Iterator[Row]:
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    delimiter, header = _layout(first, columns)
    rows = _split(file, text, delimiter, header)
    try:
        placed = columns.place(next(rows)[1]) if header else list(columns.bare)
    except StopIteration:  # an empty file
        return
    except ValueError as error:
        raise BadTable(f"{file}, header {_brief(first.strip())}: {error}") from None
    for row, cells in rows:
        if any(cell.strip() for cell in cells):
            yield replace(row, values=_values(row, cells, placed, delimiter, columns))


def _layout(first: str, columns: Columns) -> tuple[str, bool]:
    """Return the delimiter, and whether the first line is a header."""
    split = {mark: cells for mark in _DELIMITERS if len(cells := _cells(first, mark)) > 1}
    for delimiter, cells in split.items():
        if any(columns.meaning(heading) for heading in cells):
            return delimiter, True
    for delimiter, cells in split.items():
        if (
            columns.bare
            and _FILE.fullmatch(cells[0].strip())
            and not set(cells[0]) & set(_DELIMITERS)
        ):
            return delimiter, False
    return next(iter(split), ","), True


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line[: lines.VALUE_LIMIT]], delimiter=delimiter), [])


def _split(file: Path, text: str, delimiter: str, header: bool) -> Iterator[tuple[Row, list[str]]]:
    """Yield the location and cells of each non-empty row; a header is row 0."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 0 if header else 1
    while True:
        row = Row(file, number, reader.line_num + 1, {})
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row.refuse(_csv_problem(str(error), text, row.line))
        if cells:
            number += 1
            yield row, cells


def _csv_problem(error: str, text: str, line: int) -> str:
    if "field larger" in error:
        return f"a value holds more than {lines.VALUE_LIMIT} characters; is a quote not closed?"
    begin = next(
        content for at, content in enumerate(io.StringIO(text, newline=""), 1) if at == line
    )
    return (
        'a quote is not closed, or text follows the closing one ("" is a quote in a value): '
        f"{_brief(begin.strip())}"
    )


def _values(
    row: Row, cells: list[str], placed: list[str], delimiter: str, columns: Columns
) -> dict[str, str]:
    """Return the stripped cells by column."""
    if len(cells) > len(placed) and columns.rest and placed[-1] == columns.rest:
        cells = [*cells[: len(placed) - 1], delimiter.join(cells[len(placed) - 1 :])]
    if any(cell.strip() for cell in cells[len(placed) :]):
        row.refuse(
            f"{len(cells)} values for {len(placed)} columns; quote values that contain "
            f"{delimiter!r}"
        )
    key, found = placed.index(columns.needed[0]), {}
    for place, (name, cell) in enumerate(zip(placed, cells, strict=False)):
        if _holds_rows(cell, place, key, delimiter):
            row.refuse("a quote is opened here and closed in a later row", name)
        # Flickr30k's "|" table has blanks around cells, and quotes in captions
        literal = name == columns.rest and delimiter == "|"
        if cell[:1].isspace() and cell.lstrip().startswith('"') and not literal:
            row.refuse("a blank precedes the quote; remove it", name)
        if name == _INDEX_COLUMN and cell.strip() and not _NUMBER.fullmatch(cell.strip()):
            row.refuse(f"column {place + 1} has no name, and holds {_brief(cell)}")
        if name in columns.known and cell.strip():
            found[name] = cell.strip()
    return found


def _holds_rows(cell: str, place: int, key: int, delimiter: str) -> bool:
    """Return whether a value contains other rows: lines with a file name in the expected column.

    place: the value's column. key: the column of file names.
    """
    for number, line in enumerate(cell.splitlines() if "\n" in cell or "\r" in cell else ()):
        parts = _cells(line, delimiter)
        at = key - (0 if number else place)
        if len(parts) > 1 and 0 <= at < len(parts) and _FILE.fullmatch(parts[at].strip()):
            return True
    return False


def _numbers(values: Any) -> tuple[float, ...]:
    """Return the values if all are finite numbers, else ()."""
    try:
        numbers = tuple(float(value) for value in values if not isinstance(value, bool))
    except (TypeError, ValueError, OverflowError):
        return ()
    return numbers if len(numbers) == len(values) and all(map(math.isfinite, numbers)) else ()


def _brief(value: Any) -> str:
    """Return a value, abbreviated, on one line."""
    try:
        text = json.dumps(value) if not isinstance(value, str) else repr(value)
    except (RecursionError, ValueError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
