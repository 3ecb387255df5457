"""A finished run: its images, their outcomes, and the categories of its regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadImage
from .journal import Outcome
from .output import Output
from .plan import Item

OBJECT = "object"  # the category of regions found by a box or point, without a text


@dataclass(frozen=True, eq=False)
class Done:
    """A finished run: its images in order, and the output that holds outcomes and files."""

    items: Sequence[Item]
    output: Output
    out: Path

    def outcome(self, item: Item) -> Outcome:
        """Return an image's outcome."""
        found = self.output.ledger.get(item.name)
        if found is None:
            raise BadImage(
                f"{item.path}: it was changed or its masks were removed while the results were "
                "merged; run again"
            )
        return found

    def outcomes(self) -> Iterator[tuple[int, Item, Outcome]]:
        """Yield number (from 1), item and outcome of every image that did not fail."""
        for number, item in enumerate(self.items, 1):
            found = self.outcome(item)
            if found.state != "failed":
                yield number, item, found

    def rows(self) -> Iterator[tuple[int, Item, str, dict[str, Any]]]:
        """Yield every region: its image's number and item, the category, the record's row."""
        for number, item, found in self.outcomes():
            for row in found.record["rows"]:
                yield number, item, category(row, item), row

    def categories(self) -> list[str]:
        """Return every text in the order of the run, and OBJECT if boxes or points were prompts."""
        texts = dict.fromkeys(text for item in self.items for text in item.ask.texts)
        places = any(not item.ask.texts for item in self.items)
        return [*texts, *([OBJECT] if places and OBJECT not in texts else [])]


def category(row: dict[str, Any], item: Item) -> str:
    """Return the category of a region of an image's record: its text, or OBJECT without texts."""
    text: str = row["text"]
    return text if text in item.ask.texts else OBJECT
