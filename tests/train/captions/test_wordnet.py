"""WordNet's nouns: meanings and hypernyms."""

from __future__ import annotations

from train.captions.wordnet import ancestors, look_up, senses, synsets

DOG, RETRIEVER = 2084071, 2099601


def test_a_name_means_its_most_frequent_noun_its_singular_or_its_head() -> None:
    assert look_up("dog") == look_up("dogs") == DOG == senses()["dog"][0]
    assert look_up("golden retriever") == RETRIEVER
    assert look_up("xyzzy") is None


def test_hypernyms_include_the_meaning_itself() -> None:
    assert {RETRIEVER, DOG} <= ancestors(RETRIEVER)
    assert RETRIEVER not in ancestors(DOG)
    assert "dog" in synsets()[DOG].words
