"""The vocabulary of the text tower."""

from __future__ import annotations

from train.captions.vocabulary import nouns, phrases, pieces, plural


def test_plurals_are_regular() -> None:
    assert [plural(word) for word in ("cup", "box", "berry", "toy")] == [
        "cups",
        "boxes",
        "berries",
        "toys",
    ]


def test_a_caption_is_split_at_its_connecting_words_and_kept_whole() -> None:
    caption = "a dog with a ball on the grass"
    found = pieces([caption])
    assert caption in found
    assert any(piece.endswith("dog") for piece in found)
    assert any("ball" in piece and "dog" not in piece for piece in found)


def test_phrases_are_about_the_things_and_a_seed_makes_the_same() -> None:
    made = phrases(["cup", "dog", "tree"], 50)
    assert made == phrases(["cup", "dog", "tree"], 50)
    assert len(made) == 50
    assert all(any(stem in text for stem in ("cup", "dog", "tree")) for text in made)


def test_nouns_are_things_one_can_see() -> None:
    words, common = nouns()
    assert {"dog", "cup"} <= set(common) <= set(words)
    assert "democracy" not in words
