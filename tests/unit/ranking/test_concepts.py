"""Concepts: their names, texts, files and examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from segclip.errors import BadIndex, BadPrompt, NotWritable, UnknownName, Unsupported
from segclip.ranking import concepts
from segclip.ranking.concepts import Concept, Example
from segclip.types import Boxes, Everything, Points


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGCLIP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def bolt(name: str = "bolt", *, unlikes: int = 1) -> Concept:
    rows = np.eye(4, dtype=np.float32)
    return Concept(
        name,
        rows[:2],
        rows[2 : 2 + unlikes],
        "an encoder",
        "abc",
        ("/a b.png@1,2", "/c.png", "/d.png@1,2,3,4")[: 2 + unlikes],
        np.zeros((2 + unlikes, 8, 8, 3), np.uint8),
    )


def test_a_saved_concept_is_read_back_and_listed(home: Path) -> None:
    assert concepts.names() == []
    path = bolt().save()
    assert path == home / "concepts" / "bolt.concept"
    found = concepts.find("bolt")
    for name in ("likes", "unlikes", "thumbnails"):
        np.testing.assert_array_equal(getattr(found, name), getattr(bolt(), name))
    assert (found.name, found.encoder, found.fingerprint) == ("bolt", "an encoder", "abc")
    assert found.given == bolt().given
    assert concepts.find(str(path)).name == "bolt"
    assert bolt("nut", unlikes=0).save() != path
    assert concepts.names() == ["bolt", "nut"]
    concepts.remove("bolt")
    assert concepts.names() == ["nut"]
    assert [file.name for file in path.parent.iterdir()] == ["nut.concept"]


def test_the_file_depends_on_nothing_but_the_concept() -> None:
    assert bolt().to_bytes() == bolt().to_bytes()
    path = bolt().save()
    before = concepts.stamp("bolt")
    bolt(unlikes=0).save()
    assert concepts.stamp("bolt") != before
    bolt().save(path)
    assert concepts.stamp("bolt") == before


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../bolt", "a/b", "a\\b", "/etc/passwd", "-x", "a b", "x.concept", "a" * 65],
)
def test_names_that_are_no_file_names_are_refused(name: str, home: Path) -> None:
    for call in (
        lambda: bolt(name),
        lambda: concepts.path_of(name),
        lambda: concepts.remove(name),
    ):
        with pytest.raises(BadPrompt, match="cannot name a concept"):
            call()
    assert not home.exists()


def test_an_unknown_concept_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="there are none yet"):
        concepts.find("bolt")
    bolt("nut").save()
    for name in ("bolt", str(tmp_path / "no.concept")):
        with pytest.raises(UnknownName, match="there are 'nut'"):
            concepts.find(name)
    assert concepts.find("bolt", [bolt()]).name == "bolt"


def test_a_server_for_others_opens_no_file_that_a_query_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bolt().save(tmp_path / "mine.concept")
    assert concepts.find(str(path)).name == "bolt"
    monkeypatch.setenv(concepts.FILES, "0")
    with pytest.raises(BadPrompt, match="by name here"):
        concepts.find(str(path))


def spoil(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    "damage",
    [
        spoil(lambda data: b""),
        spoil(lambda data: data[: len(data) // 2]),
        spoil(lambda data: data.replace(b'"version": 1', b'"version": 2')),
        spoil(lambda data: data.replace(b'"name": "bolt"', b'"name": "../."')),
        spoil(lambda data: data.replace(b'"given": [', b'"given": 1,[')),
        spoil(lambda data: data.replace(b'"likes"', b'"likez"')),
        spoil(lambda data: b"\xff" * 8 + data[8:]),
        lambda path: (path.unlink(), path.mkdir(), (path / "x").touch()),
    ],
)
def test_a_damaged_file_is_one_line(damage: Callable[[Path], object]) -> None:
    path = bolt().save()
    damage(path)
    with pytest.raises((BadIndex, UnknownName)) as caught:
        concepts.find("bolt")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value) or "unknown concept" in str(caught.value)


def test_tables_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(BadPrompt, match="no example"):
        replace(bolt(), likes=np.zeros((0, 4), np.float32))
    wrong = np.full((1, 4), np.nan, np.float32)
    for change in (
        {"likes": np.zeros((2, 3), np.float32)},
        {"unlikes": wrong},
        {"given": ()},
        {"thumbnails": np.zeros((3, 0, 8, 3), np.uint8)},
    ):
        with pytest.raises(ValueError, match=r"want|not finite"):
            replace(bolt(), **change)


def test_another_encoder_is_refused_with_the_command_that_makes_it_again() -> None:
    bolt().check("a file moved", "abc")
    with pytest.raises(Unsupported) as caught:
        bolt().check("other one", "xyz")
    assert str(caught.value).endswith(
        "segclip concepts add bolt --like '/a b.png@1,2' --like /c.png --unlike /d.png@1,2,3,4 "
        "--encoder 'other one'"
    )
    nameless = replace(bolt(), fingerprint="")
    nameless.check("an encoder", "")
    with pytest.raises(Unsupported):
        nameless.check("another", "")


def test_a_concept_that_cannot_be_written_is_reported(home: Path) -> None:
    home.mkdir()
    (home / "concepts").touch()
    with pytest.raises(NotWritable):
        bolt().save()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("@bolt", "bolt"),
        ("the @bolt", "bolt"),
        ("@a/b.concept", "a/b.concept"),
        ("bolt", None),
        ("a red @bolt", None),
        ("mail me @ home", None),
    ],
)
def test_a_text_that_begins_with_an_at_sign_is_a_concept(text: str, name: str | None) -> None:
    assert concepts.name_in(text) == name


def test_concepts_are_found_behind_words_of_place() -> None:
    texts = ["left @bolt", "the @nut above the @bolt", "a cup", "second @x from the left"]
    assert concepts.names_in(texts) == ["bolt", "nut", "x"]


class TestExample:
    @pytest.fixture(autouse=True)
    def files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("a.png", "b@1,2", "mask.png"):
            Pillow.new("RGB", (4, 4)).save(name, "PNG")

    def test_its_text_is_read_and_written(self, tmp_path: Path) -> None:
        click, box = Example.parse("a.png@1,2.5"), Example.parse("a.png@1,2,3,4")
        assert isinstance(click.place, Points)
        assert isinstance(box.place, Boxes)
        assert click.place.xy.tolist() == [[1, 2.5]]
        assert box.place.xyxy.tolist() == [[1, 2, 3, 4]]
        assert isinstance(Example.parse("a.png").place, Everything)
        assert Example.parse("a.png@mask.png").place == Path("mask.png")
        assert Example.parse("b@1,2").source == Path("b@1,2")
        for text in ("a.png@1,2.5", "a.png@1,2,3,4", "a.png"):
            assert str(Example.parse(text)) == str(tmp_path / text)
        assert str(Example.parse("a.png@mask.png")) == f"{tmp_path}/a.png@{tmp_path}/mask.png"
        assert str(Example.parse(str(click))) == str(click)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("no.png", "no image 'no.png'"),
            ("no.png@1,2", "no image 'no.png'"),
            ("a.png@1", "no place after the @"),
            ("a.png@1,2,3", "no place after the @"),
            ("a.png@nan,2", "no place after the @"),
            ("a.png@no.png", "no place after the @"),
            ("a.png@5,5,1,1", "x1 < x2"),
            ("", "no image"),
            ("@", "no image"),
        ],
    )
    def test_a_bad_one_is_refused(self, text: str, message: str) -> None:
        with pytest.raises(BadPrompt, match=message):
            Example.parse(text)

    def test_it_is_one_object(self) -> None:
        for place in (Points([(1, 2), (3, 4)]), Points([(1, 2)], [0]), np.zeros((2, 3, 4)), 3):
            with pytest.raises(BadPrompt, match="several examples"):
                Example("a.png", place)
