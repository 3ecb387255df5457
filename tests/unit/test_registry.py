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


def test_nothing_is_imported_until_asked() -> None:
    table = {
        "a": "segclip.errors:BadImage",
        "b": "this:s",
    }  # importing `this` prints the Zen of Python
    assert registry.resolve(table, "a", "thing").__name__ == "BadImage"
    assert "this" not in sys.modules


def test_an_unknown_name_lists_the_choices_and_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        registry.resolve(TABLE, "fastsan", "proposer")
    assert (
        str(caught.value)
        == "unknown proposer 'fastsan'; did you mean 'fastsam'? (choices: fastsam, sam)"
    )


def test_a_far_name_lists_the_choices_alone() -> None:
    with pytest.raises(UnknownName, match=r"^unknown proposer 'xyz' \(choices: fastsam, sam\)$"):
        registry.choose(TABLE, "xyz", "proposer")


def test_an_empty_table_says_so() -> None:
    with pytest.raises(UnknownName, match=r"choices: none"):
        registry.choose({}, "", "format")


@pytest.mark.parametrize("name", ["runs/FastSAM-x", "FastSAM.pt", "model.safetensors", "model.pth"])
def test_a_name_that_looks_like_a_path_offers_both_spellings(name: str) -> None:
    with pytest.raises(
        UnknownName, match=f"for a file write 'file:{name}', for the known one 'fastsam'"
    ):
        registry.resolve(TABLE, name, "proposer")


def test_an_existing_file_looks_like_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not registry.looks_like_path("checkpoint")
    (tmp_path / "checkpoint").touch()
    assert registry.looks_like_path("checkpoint")
    assert not registry.looks_like_path("")
