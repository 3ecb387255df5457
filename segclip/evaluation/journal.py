"""Keep what was measured in a file of JSON lines, so that an interrupted evaluation goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import NoReturn

from ..errors import BadIndex
from ..files import atomic, regular, tables
from .expressions import ExpressionOutcome

_START = '{"settings": '
_FIELDS = {each.name for each in fields(ExpressionOutcome)}
_KINDS: dict[str, type | tuple[type, ...]] = {
    "key": str,
    **dict.fromkeys(("targets", "answers", "intersection", "union"), int),
    "matched": list,
    "best": (int, float),
    "chosen": bool,
}


class OutcomeJournal:
    """Outcomes of expressions, a line each, added as they are measured.

    Lines of other settings are kept and ignored, so that one file serves several models.
    """

    def __init__(self, path: Path, settings: str) -> None:
        """Read the outcomes of an earlier run, if there is one.

        settings: a fingerprint of all that the outcomes depend on. Raises BadIndex for a file that
        is not a journal, and NotWritable.
        """
        regular.refuse_strange(path)
        self.path, self.settings = path, settings
        self.outcomes: dict[str, ExpressionOutcome] = {}
        if not path.exists():
            with atomic.writing_to(path):  # noticed before the long work, not after it
                path.parent.mkdir(parents=True, exist_ok=True)
            return
        try:
            text = regular.read(path).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadIndex(f"the journal {path} cannot be read: {error}; delete it") from None
        whole, _, torn = text.rpartition("\n")
        for number, line in enumerate(whole.split("\n") if whole else (), 1):
            self._take(line, number)
        if torn:
            if not (torn.startswith(_START) or _START.startswith(torn)):
                self._refuse(whole.count("\n") + 2)
            self._cut(len(text.encode()) - len(torn.encode()))

    def add(self, outcomes: Iterable[ExpressionOutcome]) -> None:
        """Store outcomes; they are on disk once this returns. Raises NotWritable."""
        found = list(outcomes)
        lines = [json.dumps({"settings": self.settings, **asdict(outcome)}) for outcome in found]
        with atomic.writing_to(self.path), self.path.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        self.outcomes |= {outcome.key: outcome for outcome in found}

    def _take(self, line: str, number: int) -> None:
        try:
            row = tables.parse_json(line)
        except ValueError:
            self._refuse(number)
        if not isinstance(row, dict) or not line.startswith(_START):
            self._refuse(number)
        if row.pop("settings") != self.settings:
            return
        if set(row) != _FIELDS or not all(isinstance(row[name], _KINDS[name]) for name in row):
            self._refuse(number)
        self.outcomes[row["key"]] = ExpressionOutcome(**{**row, "matched": tuple(row["matched"])})

    def _refuse(self, number: int) -> NoReturn:
        raise BadIndex(
            f"{self.path}, line {number} is not of a journal of `segclip evaluate`; delete the "
            "file, or choose another name"
        )

    def _cut(self, size: int) -> None:
        """Drop the last line, which was not written to its end."""
        with atomic.writing_to(self.path):
            os.truncate(self.path, size)
