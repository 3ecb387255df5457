"""A question about an image: one frozen value of all that can be queried."""

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
MAX_TEXT = 1000  # characters; encoders read fewer, and log where they stop

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Question:
    """A question about one image: by texts, place or example, or for everything.

    texts: what to find; a single string is one text. place: where to search, ``Everything`` for the
    whole image; without texts, what is at these points or in these boxes is cut out. example: a
    click on the object to find more of. everything: cut out every object. negatives, backgrounds:
    texts that each text competes with. templates: sentences with ``{}``, or the name of a set. None
    uses the encoder's ``serving``. max_pixels: the largest image that is read. concepts: what
    ``Segmenter.concept`` made, one or more, to find, or for texts such as "@bolt" to name; saved
    ones need not be given.

    Raises BadPrompt for texts that no encoder can read, and for fields that exclude each other.
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
    concepts: Any = ()

    def __post_init__(self) -> None:
        several = isinstance(self.concepts, Sequence)
        concepts = tuple(self.concepts) if several else (self.concepts,)
        object.__setattr__(self, "concepts", concepts)
        given = self.texts or [concept.text for concept in concepts]
        texts, negatives = unique(given), unique(self.negatives)
        if both := set(texts) & set(negatives):
            raise BadPrompt(f"{min(both)!r} is both asked for and ruled out; drop one of them")
        if self.everything and (texts or self.example or not isinstance(self.place, Everything)):
            raise BadPrompt(
                "everything takes neither texts nor an example nor a click on an object; give "
                "boxes to search in, or background clicks on what to leave out"
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
        """Whether answering takes an encoder: for texts and for an example."""
        return bool(self.texts) or self.example is not None


def unique(texts: str | Sequence[str]) -> tuple[str, ...]:
    """Return each text once, whitespace normalised; log duplicates.

    Raises BadPrompt for a text that is empty, longer than ``MAX_TEXT`` characters, or not Unicode.
    """
    given = [" ".join(text.split()) for text in ([texts] if isinstance(texts, str) else texts)]
    if "" in given:
        raise BadPrompt("an empty text was given; say what to look for, for example 'a red apple'")
    for text in given:
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise BadPrompt(f"the text {text!r} holds bytes that are not UTF-8; give it as UTF-8")
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
    """Cut a text to ``MAX_TEXT`` characters and log where."""
    words = " ".join(text.split())
    if len(words) <= MAX_TEXT:
        return words
    kept = words[:MAX_TEXT]
    log.warning("a text of %d characters was given, read only up to %r", len(words), kept[-40:])
    return kept
