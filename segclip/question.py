"""Hold all that can be asked of one image in one frozen value."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import BadPrompt
from .ranking.selection import Selection
from .types.prompts import Everything, Points, Prompt

MAX_PIXELS = 100_000_000  # of the largest image that is read
MAX_TEXT = 1000  # characters; encoders read fewer, and report where they stop

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Question:
    """Ask one image for what texts name, for what a place or an example shows, or for everything.

    texts: what to find; a single string is one text. place: where to look, ``Everything`` for the
    whole image; without texts, what is at these points or in these boxes is cut out. example: a
    click on what to find more of. everything: cut out every object. negatives, backgrounds: texts
    that each text competes with; templates: sentences with ``{}``, or the name of a set; what is
    None comes from the encoder's ``serving``. max_pixels: the largest image that is read.

    Raises BadPrompt for texts that no encoder could read, and for parts that exclude each other.
    """

    texts: Any = ()
    place: Prompt = field(default_factory=Everything)
    example: Points | None = None
    everything: bool = False
    negatives: Any = ()
    backgrounds: Any = None
    templates: Any = None
    selection: Selection = field(default_factory=Selection)
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        texts, negatives = unique(self.texts), unique(self.negatives)
        if both := set(texts) & set(negatives):
            raise BadPrompt(f"{min(both)!r} is both asked for and ruled out; drop one of them")
        if self.everything and (texts or self.example or not isinstance(self.place, Everything)):
            raise BadPrompt(
                "everything takes neither texts nor an example nor a click on an object; give "
                "boxes to "
                "look in, or background clicks on what to leave out"
            )
        if self.example and (texts or not isinstance(self.place, Everything)):
            raise BadPrompt(
                "an example takes neither texts nor points; give boxes to search in, or nothing "
                "else"
            )
        object.__setattr__(self, "texts", texts)
        object.__setattr__(self, "negatives", negatives)
        if self.backgrounds is not None:
            object.__setattr__(self, "backgrounds", unique(self.backgrounds))

    @property
    def needs_encoder(self) -> bool:
        """Whether only an encoder can answer it: for texts, and for what looks like an example."""
        return bool(self.texts) or self.example is not None


def unique(texts: str | Sequence[str]) -> tuple[str, ...]:
    """Return each text once, without stray blanks; log one given twice.

    Raises BadPrompt for an empty text, one of over ``MAX_TEXT`` characters, or one that is no text.
    """
    given = [" ".join(text.split()) for text in ([texts] if isinstance(texts, str) else texts)]
    if "" in given:
        raise BadPrompt("an empty text was given; say what to look for, for example 'a red apple'")
    for text in given:
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise BadPrompt(
                f"the text {text!r} holds bytes that are no characters; give it as UTF-8"
            )
        if len(text) > MAX_TEXT:
            raise BadPrompt(
                f"a text of {len(text)} characters was given; at most {MAX_TEXT} are read: "
                f"{text[:40]!r}..."
            )
    for text, count in Counter(given).items():
        if count > 1:
            log.warning("%r was given %d times and is used once", text, count)
    return tuple(dict.fromkeys(given))


def shorten(text: str) -> str:
    """Cut an endless text and log where; the encoder reads fewer words still, and logs that too."""
    words = " ".join(text.split())
    if len(words) <= MAX_TEXT:
        return words
    kept = words[:MAX_TEXT]
    log.warning("a text of %d characters was given, read only up to %r", len(words), kept[-40:])
    return kept
