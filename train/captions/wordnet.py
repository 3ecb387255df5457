"""Read WordNet's nouns: synonyms and hypernyms.

Debian's ``wordnet-base`` (WordNet 3.0, free licence); its synset numbers are those of ImageNet's
class names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from segclip.errors import WeightsMissing

FOLDER = Path("/usr/share/wordnet")


@dataclass(frozen=True)
class Synset:
    """A meaning. words: its lemmas, with spaces for underscores. kinds: its direct hypernyms."""

    number: int
    words: tuple[str, ...]
    kinds: tuple[int, ...]


@cache
def synsets() -> dict[int, Synset]:
    """Read every noun meaning, by number. Raises WeightsMissing without the data."""
    file = FOLDER / "data.noun"
    if not file.exists():
        raise WeightsMissing(
            f"WordNet is not in {FOLDER}; on Debian or Ubuntu: apt-get install wordnet-base"
        )
    found = {}
    for line in file.read_text("latin-1").splitlines():
        if line.startswith(" "):
            continue  # the licence
        fields = line.partition("|")[0].split()
        count = int(fields[3], 16)
        words = tuple(fields[4 + 2 * k].replace("_", " ") for k in range(count))
        rest = fields[5 + 2 * count :]
        kinds = tuple(int(rest[k + 1]) for k in range(0, len(rest), 4) if rest[k] in ("@", "@i"))
        found[int(fields[0])] = Synset(int(fields[0]), words, kinds)
    return found


@cache
def senses() -> dict[str, tuple[int, ...]]:
    """List each noun's meanings, the most frequent first."""
    found = {}
    for line in (FOLDER / "index.noun").read_text("latin-1").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            count = int(fields[2])
            found[fields[0].replace("_", " ")] = tuple(int(number) for number in fields[-count:])
    return found


@cache
def ancestors(number: int) -> frozenset[int]:
    """Return the hypernyms of a synset, itself included."""
    found, waiting = {number}, [number]
    while waiting:
        for kind in synsets()[waiting.pop()].kinds:
            if kind not in found:
                found.add(kind)
                waiting.append(kind)
    return frozenset(found)


def look_up(name: str) -> int | None:
    """Return the most frequent meaning of a name, its singular or its head noun, or None."""
    table = senses()
    words = name.lower().split()
    for start in range(len(words)):
        tail = " ".join(words[start:])
        for form in (tail, tail.removesuffix("s"), tail.removesuffix("es")):
            if form in table:
                return table[form][0]
    return None
