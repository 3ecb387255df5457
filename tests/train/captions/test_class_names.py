"""Classes are named by their folder or by WordNet."""

from __future__ import annotations

from train.captions.class_names import plain_classes


def test_folders_name_classes_in_words_with_their_meaning() -> None:
    classes = plain_classes(["Faces_easy", "crocodile_head", "dog"], "caltech")
    assert [kind.group for kind in classes] == ["caltech"] * 3
    assert classes[2].texts[0] == "dog"
    assert classes[2].synset == 2084071
    assert all("_" not in text for kind in classes for text in kind.texts)
