from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path

import pytest

from segclip import registry
from segclip.errors import UnknownName

TABLE = {"fastsam": "collections:OrderedDict", "sam": "no.such.module:Thing"}


def test_resolve_imports_the_named_attribute() -> None:
    assert registry.resolve(TABLE, "fastsam", "proposer") is OrderedDict


def test_only_the_resolved_entry_is_imported() -> None:
    # importing `this` prints the Zen of Python
    table = {"a": "segclip.errors:BadImage", "b": "this:s"}
    assert registry.resolve(table, "a", "thing").__name__ == "BadImage"
    assert "this" not in sys.modules


def test_an_unknown_name_lists_the_choices_and_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        registry.resolve(TABLE, "fastsan", "proposer")
    assert (
        str(caught.value)
        == "unknown proposer 'fastsan'; did you mean 'fastsam'? (choices: fastsam, sam)"
    )


def test_a_dissimilar_name_lists_only_the_choices() -> None:
    with pytest.raises(UnknownName, match=r"^unknown proposer 'xyz' \(choices: fastsam, sam\)$"):
        registry.choose(TABLE, "xyz", "proposer")


def test_an_empty_table_lists_no_choices() -> None:
    with pytest.raises(UnknownName, match=r"choices: none"):
        registry.choose({}, "", "format")


@pytest.mark.parametrize("name", ["runs/FastSAM-x", "FastSAM.pt", "model.safetensors", "model.pth"])
def test_an_unknown_path_like_name_suggests_both_spellings(name: str) -> None:
    with pytest.raises(
        UnknownName, match=f"for a file write 'file:{name}', for the known one 'fastsam'"
    ):
        registry.resolve(TABLE, name, "proposer")


def test_an_existing_file_counts_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not registry.looks_like_path("checkpoint")
    (tmp_path / "checkpoint").touch()
    assert registry.looks_like_path("checkpoint")
    assert not registry.looks_like_path("")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("https://a.org/b.jpg", True),
        ("S3://bucket/key", True),
        ("desk.png", False),
        ("file:own.pt", False),
        ("C:\\photos", False),
        ("", False),
    ],
)
def test_a_web_address_is_recognised(name: str, expected: bool) -> None:
    assert registry.looks_like_address(name) is expected
