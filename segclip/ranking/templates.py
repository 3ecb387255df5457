"""Put texts into sentence templates: encoders trained on captions expect "a photo of an apple."."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import BadPrompt, UnknownName
from ..files import lines
from ..registry import resolve

TEMPLATES: dict[str, tuple[str, ...]] = {
    "plain": ("{}",),
    "photo": ("a photo of a {}.",),
    # the subset of the 80 that the authors of OpenAI's CLIP found to do as well as all of them
    "clip-7": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
}
PROVIDED: dict[str, str] = {"clip-80": "segclip.encoders.openclip:imagenet_templates"}

# "the apple", "my dog", "two dogs", "3 dogs": these take no article
_DETERMINER = re.compile(
    r"(an?|the|this|that|these|those|my|your|his|her|its|our|their|another|some|any|each|every|all|both|no|several|many|few"
    r"|one|two|three|four|five|six|seven|eight|nine|ten|\d+)\b",
    re.IGNORECASE,
)
_CONSONANT_SOUND = re.compile(
    r"(u(ni(?!n|m)|s[aeu]|ku|rin|tens|to)|eu|ewe|one\b|once\b)", re.IGNORECASE
)
_VOWEL_SOUND = re.compile(r"([aeiou]|hour|honest|honou?r|heir|x-ray)", re.IGNORECASE)
_SLOT = re.compile(r"(?:\b(an?|the) )?\{\}", re.IGNORECASE)


def get(name: str | Path) -> tuple[str, ...]:
    """Return a set of templates by name, or from a file with one template per line."""
    if name in TEMPLATES:
        return TEMPLATES[str(name)]
    if name in PROVIDED:
        templates: tuple[str, ...] = resolve(PROVIDED, str(name), "template set")()
        return templates
    path = Path(name)
    if path.is_file():
        return check(lines.read(path, "the templates file"))
    known = ", ".join([*TEMPLATES, *PROVIDED])
    raise UnknownName(
        f"unknown template set {str(name)!r}; choose one of {known}, or give a text file of "
        "templates"
    )


def expand(text: str, templates: Sequence[str]) -> list[str]:
    """Put ``text`` into each template, with the article it needs.

    The template's "a" becomes "an" before a vowel sound ("an apple", "an hourglass", "a unicorn"),
    and its article is dropped when the text has a determiner of its own: an article, a possessive,
    a number ("the apple", "my dog", "2 dogs").
    """
    name = " ".join(text.split())
    if not name:
        raise BadPrompt("an empty text was given; say what to look for, for example 'a red apple'")
    return [
        _SLOT.sub(lambda slot: _with_article(slot.group(1), name), template)
        for template in check(templates)
    ]


def fill(text: str, templates: Sequence[str]) -> list[str]:
    """Put ``text`` into each template verbatim ("a photo of a apple."), as in published figures."""
    return [template.replace("{}", text) for template in check(templates)]


def check(templates: Iterable[str]) -> tuple[str, ...]:
    """Return the templates as a tuple. Raises BadPrompt if empty, or if one has no ``{}``."""
    checked = tuple(templates)
    without = [template for template in checked if "{}" not in template]
    if without or not checked:
        given = f"{without[0]!r} has no {{}}" if without else "there are none"
        raise BadPrompt(
            f"every template needs a {{}} where the text goes, such as 'a photo of a {{}}.'; "
            f"{given}"
        )
    return checked


def _with_article(article: str | None, name: str) -> str:
    if article is None or _DETERMINER.match(name):
        return name
    if article.lower() == "the":
        return f"{article} {name}"
    vowel = _VOWEL_SOUND.match(name) and not _CONSONANT_SOUND.match(name)
    return f"{article[0]}{'n' if vowel else ''} {name}"
