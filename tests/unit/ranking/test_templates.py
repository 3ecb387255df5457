"""Templates: names, files, articles."""

from __future__ import annotations

from pathlib import Path

import pytest

from segclip.errors import BadPrompt, UnknownName
from segclip.ranking import templates


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dog", "a photo of a dog."),
        ("apple", "a photo of an apple."),
        ("red apple", "a photo of a red apple."),
        ("a red apple", "a photo of a red apple."),
        ("an apple", "a photo of an apple."),
        ("The apple", "a photo of The apple."),
        ("my dog", "a photo of my dog."),
        ("two dogs", "a photo of two dogs."),
        ("3 dogs", "a photo of 3 dogs."),
        ("another dog", "a photo of another dog."),
        ("onion", "a photo of an onion."),
        ("unicorn", "a photo of a unicorn."),
        ("umbrella", "a photo of an umbrella."),
        ("hourglass", "a photo of an hourglass."),
        ("used car", "a photo of a used car."),
        ("  red   apple ", "a photo of a red apple."),
        ("{curly}", "a photo of a {curly}."),
    ],
)
def test_the_article_fits_the_text(text: str, sentence: str) -> None:
    assert templates.expand(text, ["a photo of a {}."]) == [sentence]


def test_a_template_keeps_the_rest_of_its_words() -> None:
    expanded = templates.expand(
        "an owl", ["itap of the {}.", "{}", "A {} and a tree", "the toy {}", "many {}"]
    )
    assert expanded == [
        "itap of an owl.",
        "an owl",
        "an owl and a tree",
        "the toy an owl",
        "many an owl",
    ]


@pytest.mark.parametrize("text", ["", "  \n "])
def test_an_empty_text_is_refused(text: str) -> None:
    with pytest.raises(BadPrompt, match="empty text"):
        templates.expand(text, templates.TEMPLATES["plain"])


@pytest.mark.parametrize("name", [*templates.TEMPLATES, *templates.PROVIDED])
def test_every_named_set_can_be_used(name: str) -> None:
    chosen = templates.get(name)
    assert len(set(chosen)) == len(chosen)
    assert all("cat" in sentence for sentence in templates.expand("cat", chosen))


def test_the_numbered_sets_have_their_number() -> None:
    assert (len(templates.get("clip-7")), len(templates.get("clip-80"))) == (7, 80)


def test_templates_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("a sketch of a {}\n\n  {} in the snow  \n", encoding="utf-8")
    assert templates.get(file) == templates.get(str(file)) == ("a sketch of a {}", "{} in the snow")


def test_a_file_without_a_slot_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("a sketch\n", encoding="utf-8")
    with pytest.raises(BadPrompt, match=r"'a sketch' has no \{\}"):
        templates.get(file)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(BadPrompt, match="there are none"):
        templates.get(tmp_path / "none.txt")


def test_an_unknown_set_lists_the_choices() -> None:
    with pytest.raises(UnknownName, match="clip-80"):
        templates.get("clip-8")
