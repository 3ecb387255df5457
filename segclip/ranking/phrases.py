"""Choose the regions that answer a text: its matches, filtered by its words of place and size."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..types import Array, Masks
from .geometry import Half, Position, Relation
from .positions import Phrase, parse
from .selection import Selection, select


@dataclass(frozen=True, eq=False)
class TextAnswer:
    """The rows that answer a text, best first, and why position or size words chose them."""

    rows: Array
    reason: str = ""


@dataclass(frozen=True, eq=False)
class ScoredRegions:
    """Scores of N regions, (N, names) or more columns, and the rules that select rows."""

    names: tuple[str, ...]
    probability: Array
    similarity: Array
    masks: Masks
    selection: Selection
    threshold: float

    def answer(self, text: str) -> TextAnswer:
        """Return the rows of one text; position and size words filter the matches of the rest."""
        phrase = parse(text)
        if phrase is None:
            return TextAnswer(self._select(text, self.selection))
        answer = self._match_phrase(phrase)
        single = self.selection.best or (isinstance(phrase, Relation) and not phrase.plural)
        limit = 1 if single else self.selection.top_k
        return replace(answer, rows=answer.rows[:limit])

    def _match_phrase(self, phrase: Phrase) -> TextAnswer:
        rows = self._matches(phrase.head)
        if isinstance(phrase, Position):
            return TextAnswer(rows[phrase.choose(self.masks[rows])], phrase.reason(len(rows)))
        if isinstance(phrase, Half):
            inside = rows[phrase.choose(self.masks[rows])]
            return TextAnswer(inside, phrase.reason(len(inside), len(rows)))
        anchors = self._matches(phrase.anchor)
        kept = rows[phrase.choose(self.masks[rows], self.masks[anchors])]
        return TextAnswer(kept, phrase.reason(len(kept), len(rows), len(anchors)))

    def _matches(self, text: str) -> Array:
        if phrase := parse(text):
            return self._match_phrase(phrase).rows
        rows = self._select(text, replace(self.selection, best=False, top_k=None))
        return rows if len(rows) or not self.selection.best else self._select(text, self.selection)

    def _select(self, name: str, selection: Selection) -> Array:
        column = self.names.index(name)
        p, cosine = self.probability[:, column], self.similarity[:, column]
        return select(p, cosine, self.masks, selection=selection, threshold=self.threshold)
