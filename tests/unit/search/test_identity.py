"""An index is searched with the models it was built with, and loads no stranger's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segclip import Index, IndexOptions, ModelSpec, loading, make_index
from segclip.errors import BadIndex, BadPrompt
from tests.indexes import (
    place,
)


def test_another_encoder_is_refused_with_the_command_that_rebuilds(
    photos: Path, tmp_path: Path
) -> None:
    make_index(photos)
    for refused in (
        lambda: make_index(photos, IndexOptions(ModelSpec(encoder="other"))),
        lambda: Index(photos, encoder="other").search("red"),
    ):
        with pytest.raises(BadPrompt, match=r"segclip index \S*photos --encoder other --rebuild"):
            refused()
    make_index(photos, IndexOptions(ModelSpec(encoder="other"), rebuild=True))
    assert Index(photos).identity.encoder == "other"
    make_index(photos, out=tmp_path / "index")
    with pytest.raises(BadPrompt, match="photos --out "):
        Index(tmp_path / "index", encoder="third").search("red")
    make_index(
        photos,
        IndexOptions(ModelSpec(policy="tight"), regions=True, engine="numpy"),
        out=tmp_path / "the index",
    )
    kept = (
        r"--out .*the index. --regions --proposer \S+ --policy tight --engine numpy --encoder "
        r"third --rebuild"
    )
    with pytest.raises(BadPrompt, match=kept):
        Index(tmp_path / "the index", encoder="third").search("red")


@pytest.mark.parametrize(
    "key", ["source", "encoder", "weights", "proposer", "regions", "policy", "engine", "format"]
)
def test_fault_17b_an_invalid_identity_is_refused_and_repaired(indexed: Path, key: str) -> None:
    file = place(indexed) / "index.json"
    sound = json.loads(file.read_text())
    values: tuple[Any, ...] = (7, 1.5, [], {}, "\0", None, "x" * 9)
    for value in values:
        if (
            isinstance(value, str)
            and "\0" not in value
            and isinstance(sound[key] or "", str)
            and key != "engine"
        ) or ((key, value) == ("policy", None)):
            continue
        file.write_text(json.dumps({**sound, key: value}))
        with pytest.raises(BadIndex, match="segclip"):
            Index(indexed)
        if (key, value) != ("format", 7):
            make_index(indexed)
            assert json.loads(file.read_text()) == sound
    for text in (
        "[]",
        "7",
        '{"format": 1}',
        "[" * 100_000,
        '{"a":' * 50_000,
        "9" * 5000,
        '"\\ud800"',
    ):
        file.write_text(text)
        with pytest.raises(BadIndex, match="segclip index again"):
            Index(indexed)


def test_fault_17_9_a_model_that_only_the_index_names_is_not_loaded(
    indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[str] = []

    def noted(load: Callable[..., Any]) -> Callable[..., Any]:
        def call(*names: Any, **options: Any) -> Any:
            touched.extend(names)
            return load(*names)

        return call

    for name in ("load_encoder", "encoder_fingerprint", "load", "fingerprint"):
        monkeypatch.setattr(loading, name, noted(getattr(loading, name)))
    file = place(indexed) / "index.json"
    sound = json.loads(file.read_text())
    for evil in (
        "file:evil",
        "hf-hub:evil/repo",
        "ViT-B-32/file:/tmp/evil.pt",
        "local-dir:evil",
        "FILE:evil",
        "c:\\evil",
    ):
        file.write_text(json.dumps({**sound, "encoder": evil}))
        with pytest.raises(BadPrompt, match=r"if it is yours, name it: --encoder "):
            Index(indexed).search("red")
        with pytest.raises(BadPrompt, match=r"if it is yours, name it: --encoder "):
            make_index(indexed)
        file.write_text(json.dumps({**sound, "proposer": evil}))
        with pytest.raises(BadPrompt, match=r"if it is yours, name it: --proposer "):
            make_index(indexed)
    assert not [name for name in touched if "evil" in name]
    own = f"hash of {(evil := 'file:mine')}"
    file.write_text(json.dumps({**sound, "encoder": evil, "weights": own}))
    # named by the user, it is loaded
    assert Index(indexed, encoder=evil).search("red", n=1)[0].name == "sub/red.png"
    assert touched == [evil, evil]
